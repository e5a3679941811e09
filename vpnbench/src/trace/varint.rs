//! Prefix varints: the number of trailing zero bits of the first byte says how many bytes follow,
//! so that a value is written and read with one unaligned 8-byte access and no loop. That matters
//! because a packet record has about six changed words, and each is one varint.

/// Bytes that must be writable or readable at the position of a varint.
pub(super) const ROOM: usize = 16;

/// Writes `value` at `position` and returns the position behind it. The buffer must have [`ROOM`]
/// bytes there.
#[inline]
pub(super) fn write(buffer: &mut [u8], position: usize, value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    let length = bits.div_ceil(7);
    if length <= 8 {
        let word = ((value << 1) | 1) << (length - 1);
        buffer[position..position + 8].copy_from_slice(&word.to_le_bytes());
        position + length
    } else {
        buffer[position] = 0;
        buffer[position + 1..position + 9].copy_from_slice(&value.to_le_bytes());
        position + 9
    }
}

/// Reads the value at `position`, and the position behind it; `None` outside of the buffer.
#[inline]
pub(super) fn read(buffer: &[u8], position: usize) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*buffer.get(position..)?.first_chunk::<8>()?);
    let length = word.trailing_zeros() as usize + 1;
    if length <= 8 {
        let value = (word << (64 - 8 * length)) >> (64 - 7 * length);
        Some((value, position + length))
    } else {
        let value = u64::from_le_bytes(*buffer.get(position + 1..)?.first_chunk::<8>()?);
        Some((value, position + 9))
    }
}

/// Small numbers for small differences of either sign.
#[inline]
pub(super) const fn zigzag32(difference: u32) -> u32 {
    (difference << 1) ^ ((difference as i32 >> 31) as u32)
}

/// Undoes [`zigzag32`].
#[inline]
pub(super) const fn unzigzag32(value: u32) -> u32 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// Small numbers for small differences of either sign.
#[inline]
pub(super) const fn zigzag64(difference: u64) -> u64 {
    (difference << 1) ^ ((difference as i64 >> 63) as u64)
}

/// Undoes [`zigzag64`].
#[inline]
pub(super) const fn unzigzag64(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_width_round_trip() {
        let mut buffer = [0xffu8; 32];
        for shift in 0..64 {
            for value in [
                1u64 << shift,
                (1u64 << shift) - 1,
                !0 >> shift,
                !(1u64 << shift),
            ] {
                let end = write(&mut buffer, 3, value);
                assert_eq!(read(&buffer, 3), Some((value, end)), "{value:#x}");
                assert_eq!(unzigzag64(zigzag64(value)), value);
                assert_eq!(unzigzag32(zigzag32(value as u32)), value as u32);
            }
        }
        assert_eq!(read(&buffer, 30), None);
        assert_eq!(read(&buffer, usize::MAX - 2), None);
    }
}
