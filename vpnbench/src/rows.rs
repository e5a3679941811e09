//! Rows by their key, for keys that are looked up with each packet and of which few are in use at a time: a hint says
//! where the row was the last time, and the map is asked only where another one is there.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Hints kept.
const HINTS: usize = 256;

/// Values by key. Rows keep their numbers until one is removed.
#[derive(Debug, Clone)]
pub(crate) struct Rows<K, V> {
    rows: Vec<(K, V)>,
    by_key: FxHashMap<K, u32>,
    hints: [u32; HINTS],
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Rows {
            rows: Vec::new(),
            by_key: FxHashMap::default(),
            hints: [0; HINTS],
        }
    }
}

impl<K: Copy + Eq + Hash, V> Rows<K, V> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row of a key. `hint` is any number that is the same for equal keys and differs for most others.
    #[inline(always)]
    pub(crate) fn find(&mut self, key: &K, hint: u32) -> Option<u32> {
        let at = self.hints[hint as usize % HINTS];
        match self.rows.get(at as usize) {
            Some((other, _)) if other == key => Some(at),
            _ => self.look_up(key, hint),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, key: &K, hint: u32) -> Option<u32> {
        let at = *self.by_key.get(key)?;
        self.hints[hint as usize % HINTS] = at;
        Some(at)
    }

    /// A row more, of a key that has none.
    pub(crate) fn add(&mut self, key: K, value: V) -> u32 {
        let at = self.rows.len() as u32;
        self.rows.push((key, value));
        self.by_key.insert(key, at);
        at
    }

    /// The value of a row; `None` if there is no such row.
    #[inline]
    pub(crate) fn at(&mut self, row: u32) -> Option<&mut V> {
        let row = self.rows.get_mut(row as usize)?;
        Some(&mut row.1)
    }

    /// The value of a key.
    #[inline]
    pub(crate) fn get(&mut self, key: &K, hint: u32) -> Option<&mut V> {
        let row = self.find(key, hint)?;
        self.at(row)
    }

    /// The value of a key; `None` if it is not there and there is no room for one more.
    #[inline]
    pub(crate) fn get_or_add(
        &mut self,
        key: K,
        hint: u32,
        room: usize,
        fresh: impl FnOnce() -> V,
    ) -> Option<&mut V> {
        let row = match self.find(&key, hint) {
            Some(row) => row,
            None if self.len() >= room => return None,
            None => self.add(key, fresh()),
        };
        self.at(row)
    }

    /// Takes a row out; the last one takes its place.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.by_key.remove(key)?;
        let (_, value) = self.rows.swap_remove(at as usize);
        if let Some((moved, _)) = self.rows.get(at as usize) {
            self.by_key.insert(*moved, at);
        }
        Some(value)
    }

    /// All rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().map(|(key, value)| (key, value))
    }

    /// All rows.
    pub(crate) fn into_rows(self) -> Vec<(K, V)> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_row_whatever_the_hint() {
        for spread in [0, 1, 7] {
            let mut rows: Rows<u32, u32> = Rows::default();
            for number in 0..1000 {
                let key = number % 37;
                if let Some(count) = rows.get_or_add(key, key * spread, 30, || 0) {
                    *count += 1;
                }
            }
            assert_eq!(rows.len(), 30, "no room for more");
            assert_eq!(rows.get(&3, 3 * spread), Some(&mut 27));
            assert_eq!(rows.get(&36, 36 * spread), None);
            assert_eq!(rows.remove(&3), Some(27));
            assert_eq!(rows.get(&3, 3 * spread), None);
            assert_eq!(rows.len(), 29);
            assert_eq!(rows.get(&29, 29 * spread), Some(&mut 27), "it was moved");
            rows.add(77, 1);
            assert_eq!(rows.get(&3, 3 * spread), None, "its place has another key");
            assert_eq!(rows.get(&77, 3 * spread), Some(&mut 1));
            let sum: u32 = rows.into_rows().iter().map(|(_, count)| count).sum();
            let others = (0..1000).filter(|at| at % 37 < 30 && at % 37 != 3);
            assert_eq!(sum, others.count() as u32 + 1);
        }
    }
}
