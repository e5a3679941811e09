//! The tunnel's own fragmentation: a sealed packet that is too large for one outer packet leaves
//! as several datagrams, and all of them must arrive.

use std::collections::BTreeMap;

use super::packet::{HEADER, Header};

/// Packets being put together at once; the oldest gives way.
const PENDING: usize = 256;

/// Cuts a sealed packet into datagrams of at most `largest` bytes. None if they are too many.
pub(super) fn cut(data: &[u8], largest: usize) -> Option<Vec<Vec<u8>>> {
    let header = Header::read(data)?;
    let text = &data[HEADER..];
    let room = largest.checked_sub(HEADER).filter(|room| *room > 0)?;
    let pieces = u8::try_from(text.len().div_ceil(room)).ok()?;
    let cut = text.chunks(room).zip(0..).map(|(chunk, piece)| {
        let mut datagram = vec![0; HEADER + chunk.len()];
        Header {
            piece,
            pieces,
            ..header
        }
        .write(&mut datagram);
        datagram[HEADER..].copy_from_slice(chunk);
        datagram
    });
    Some(cut.collect())
}

/// Puts packets together again.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pending: BTreeMap<u64, Partial>,
}

#[derive(Debug)]
struct Partial {
    pieces: Vec<Option<Vec<u8>>>,
    missing: usize,
}

/// What a piece led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The whole sealed packet.
    Complete(Vec<u8>),
    /// More pieces are needed.
    Pending,
}

impl Assembly {
    /// Takes a piece. The second value is the number of packets given up for it.
    pub(super) fn add(&mut self, header: Header, datagram: &[u8]) -> (Outcome, u64) {
        let count = usize::from(header.pieces);
        let partial = self
            .pending
            .entry(header.sequence)
            .or_insert_with(|| Partial {
                pieces: vec![None; count],
                missing: count,
            });
        let place = partial.pieces.get_mut(usize::from(header.piece));
        if let Some(place @ None) = place {
            *place = Some(datagram[HEADER..].to_vec());
            partial.missing -= 1;
        }
        if partial.missing == 0 {
            let whole = self.pending.remove(&header.sequence);
            let mut data = vec![0; HEADER];
            Header {
                piece: 0,
                pieces: 1,
                ..header
            }
            .write(&mut data);
            for piece in whole.into_iter().flat_map(|whole| whole.pieces).flatten() {
                data.extend_from_slice(&piece);
            }
            return (Outcome::Complete(data), 0);
        }
        let mut given_up = 0;
        while self.pending.len() > PENDING {
            self.pending.pop_first();
            given_up += 1;
        }
        (Outcome::Pending, given_up)
    }

    /// Packets that are still incomplete.
    pub(super) fn pending(&self) -> u64 {
        self.pending.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(sequence: u64, length: usize) -> Vec<u8> {
        let mut data: Vec<u8> = (0..HEADER + length).map(|index| index as u8).collect();
        Header {
            piece: 0,
            pieces: 1,
            sender: 1,
            sequence,
        }
        .write(&mut data);
        data
    }

    fn add(assembly: &mut Assembly, datagram: &[u8]) -> (Outcome, u64) {
        let Some(header) = Header::read(datagram) else {
            panic!("no header")
        };
        assembly.add(header, datagram)
    }

    #[test]
    fn pieces_in_any_order_make_the_whole() {
        let whole = sealed(9, 1000);
        let Some(mut pieces) = cut(&whole, 316) else {
            panic!("not cut")
        };
        assert_eq!(pieces.len(), 4);
        assert!(pieces.iter().all(|piece| piece.len() <= 316));
        pieces.reverse();
        let mut assembly = Assembly::default();
        for piece in &pieces[..3] {
            assert_eq!(add(&mut assembly, piece), (Outcome::Pending, 0));
            assert_eq!(add(&mut assembly, piece), (Outcome::Pending, 0), "twice");
        }
        assert_eq!(
            add(&mut assembly, &pieces[3]),
            (Outcome::Complete(whole), 0)
        );
        assert_eq!(assembly.pending(), 0);
    }

    #[test]
    fn what_never_completes_gives_way() {
        let mut assembly = Assembly::default();
        let mut given_up = 0;
        for sequence in 0..300 {
            let Some(pieces) = cut(&sealed(sequence, 100), 66) else {
                panic!("not cut")
            };
            given_up += add(&mut assembly, &pieces[0]).1;
        }
        assert_eq!((given_up, assembly.pending()), (300 - 256, 256));
    }

    #[test]
    fn too_many_pieces_are_refused() {
        assert!(cut(&sealed(1, 60_000), 100).is_none());
        assert!(cut(&sealed(1, 100), HEADER).is_none());
    }
}
