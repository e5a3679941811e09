//! Encryption and decryption with ChaCha20-Poly1305 (RFC 8439) under a pre-shared key.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};

use super::packet::{HEADER, Header, OVERHEAD, Packet, TAG};

/// Bytes of the key.
pub(super) const KEY: usize = 32;

/// One end's cipher.
#[derive(Clone)]
pub(super) struct Cipher {
    /// `None`: packets stay as they are.
    cipher: Option<ChaCha20Poly1305>,
    /// Number of this end.
    sender: u32,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Cipher({})", self.sender)
    }
}

impl Cipher {
    pub(super) fn new(key: Option<[u8; KEY]>, sender: u32) -> Cipher {
        Cipher {
            cipher: key.map(|key| ChaCha20Poly1305::new(&Key::from(key))),
            sender,
        }
    }

    /// Turns header room and inner packet into header, ciphertext and tag.
    pub(super) fn seal(&self, packet: &mut Packet) -> bool {
        let header = Header {
            piece: 0,
            pieces: 1,
            sender: self.sender,
            sequence: packet.sequence,
        };
        header.write(&mut packet.data);
        let Some(cipher) = &self.cipher else {
            packet.data.extend_from_slice(&[0; TAG]);
            return true;
        };
        let nonce = Nonce::from(header.nonce());
        let inner = &mut packet.data[HEADER..];
        let Ok(tag) = cipher.encrypt_inout_detached(&nonce, &[], inner.into()) else {
            return false;
        };
        packet.data.extend_from_slice(&tag);
        true
    }

    /// Turns header, ciphertext and tag into header room and inner packet; false if it is not
    /// from the peer or damaged.
    pub(super) fn open(&self, packet: &mut Packet) -> bool {
        let Some(header) = Header::read(&packet.data) else {
            return false;
        };
        // A packet of this end that came back would decrypt, too.
        if header.sender == self.sender || packet.data.len() < OVERHEAD {
            return false;
        }
        let end = packet.data.len() - TAG;
        let Some(cipher) = &self.cipher else {
            packet.data.truncate(end);
            return true;
        };
        let (text, tag) = packet.data.split_at_mut(end);
        let Ok(tag) = Tag::try_from(&*tag) else {
            return false;
        };
        let nonce = Nonce::from(header.nonce());
        let inner = &mut text[HEADER..];
        let opened = cipher.decrypt_inout_detached(&nonce, &[], inner.into(), &tag);
        packet.data.truncate(end);
        opened.is_ok()
    }
}

/// Reads a key written as 64 hexadecimal digits.
pub(super) fn parse_key(text: &str) -> Option<[u8; KEY]> {
    let mut key = [0; KEY];
    if text.len() != 2 * KEY || !text.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_peer_opens_what_was_sealed() {
        let key = Some([7; KEY]);
        let (a, b) = (Cipher::new(key, 0), Cipher::new(key, 1));
        let mut data = vec![0; HEADER];
        data.extend_from_slice(b"inner packet");
        let mut packet = Packet::new(data.clone(), 12, 0);
        packet.sequence = 5;
        assert!(a.seal(&mut packet));
        assert_eq!(packet.data.len(), 12 + OVERHEAD);
        assert!(!a.open(&mut packet.copy(super::super::account::Copied::Duplicate)));
        let mut damaged = packet.copy(super::super::account::Copied::Duplicate);
        damaged.data[HEADER] ^= 1;
        assert!(!b.open(&mut damaged));
        assert!(b.open(&mut packet));
        assert_eq!(packet.data[HEADER..], *b"inner packet");
    }

    #[test]
    fn without_a_key_packets_are_as_long_and_not_hidden() {
        let (a, b) = (Cipher::new(None, 0), Cipher::new(None, 1));
        let mut data = vec![0; HEADER];
        data.extend_from_slice(b"inner packet");
        let mut packet = Packet::new(data, 12, 0);
        assert!(a.seal(&mut packet));
        assert_eq!(packet.data.len(), 12 + OVERHEAD);
        assert_eq!(packet.data[HEADER..HEADER + 12], *b"inner packet");
        assert!(!a.open(&mut packet.copy(super::super::account::Copied::Duplicate)));
        assert!(b.open(&mut packet));
        assert_eq!(packet.data[HEADER..], *b"inner packet");
    }

    #[test]
    fn keys_are_hexadecimal() {
        assert_eq!(parse_key(&"07".repeat(32)), Some([7; KEY]));
        assert_eq!(parse_key("07"), None);
        assert_eq!(parse_key(&"0g".repeat(32)), None);
    }
}
