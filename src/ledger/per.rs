//! Values by a key of few variants: an array that is indexed by the key itself.

use std::{
    array, fmt,
    marker::PhantomData,
    ops::{Index, IndexMut},
};

use super::{Channel, DialPhase, Direction, DropReason, MessageKind, RejectReason};
use crate::wire::stream::StreamKind;

/// A key with few variants, each of which has a fixed place in an array.
pub trait Key: Copy + 'static {
    /// Every key, in the order of their places.
    const ALL: &'static [Self];

    /// The place of this key in [`Self::ALL`].
    fn place(self) -> usize;
}

/// A value for each of the `N` keys.
pub struct Per<K, T, const N: usize> {
    values: [T; N],
    key: PhantomData<fn(K)>,
}

/// A value for each channel.
pub type PerChannel<T> = Per<Channel, T, { Channel::ALL.len() }>;
/// A value for each kind of stream.
pub type PerStream<T> = Per<StreamKind, T, { StreamKind::ALL.len() }>;
/// A value for each direction.
pub type PerDirection<T> = Per<Direction, T, { Direction::ALL.len() }>;
/// A value for each type of message.
pub type PerKind<T> = Per<MessageKind, T, { MessageKind::ALL.len() }>;
/// A value for each part of a dial.
pub type PerPhase<T> = Per<DialPhase, T, { DialPhase::ALL.len() }>;
/// A value for each reason to drop a message.
pub type PerDropReason<T> = Per<DropReason, T, { DropReason::ALL.len() }>;
/// A value for each reason to reject a message.
pub type PerRejectReason<T> = Per<RejectReason, T, { RejectReason::ALL.len() }>;

impl<K: Key, T, const N: usize> Per<K, T, N> {
    /// Calls `value` for each key and keeps the results.
    pub fn new(mut value: impl FnMut(K) -> T) -> Self {
        const { assert!(K::ALL.len() == N, "there is a value for each key and no other") };
        Self { values: array::from_fn(|place| value(K::ALL[place])), key: PhantomData }
    }

    /// Each key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        K::ALL.iter().copied().zip(&self.values)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> array::IntoIter<&T, N> {
        self.values.each_ref().into_iter()
    }

    /// Mutable references to the values.
    pub fn values_mut(&mut self) -> array::IntoIter<&mut T, N> {
        self.values.each_mut().into_iter()
    }

    /// Applies `of` to each value.
    pub fn map<U>(&self, mut of: impl FnMut(&T) -> U) -> Per<K, U, N> {
        Per::new(|key| of(&self[key]))
    }
}

impl<K: Key, const N: usize> Per<K, u64, N> {
    /// The sum of the values.
    pub fn total(&self) -> u64 {
        self.values.iter().sum()
    }
}

impl<K: Key, L: Key, const N: usize, const M: usize> Per<K, Per<L, u64, M>, N> {
    /// The sum of all values.
    pub fn total(&self) -> u64 {
        self.values.iter().map(|values| values.total()).sum()
    }
}

impl<K: Key, T, const N: usize> Index<K> for Per<K, T, N> {
    type Output = T;

    #[inline]
    fn index(&self, key: K) -> &T {
        &self.values[key.place()]
    }
}

impl<K: Key, T, const N: usize> IndexMut<K> for Per<K, T, N> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut T {
        &mut self.values[key.place()]
    }
}

impl<K: Key, T: Default, const N: usize> Default for Per<K, T, N> {
    fn default() -> Self {
        Self::new(|_| T::default())
    }
}

impl<K, T: Clone, const N: usize> Clone for Per<K, T, N> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), key: PhantomData }
    }
}

impl<K, T: Copy, const N: usize> Copy for Per<K, T, N> {}

impl<K, T: PartialEq, const N: usize> PartialEq for Per<K, T, N> {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl<K, T: Eq, const N: usize> Eq for Per<K, T, N> {}

/// The values in the order of their keys.
impl<K, T: PartialEq, const N: usize> PartialEq<[T; N]> for Per<K, T, N> {
    fn eq(&self, other: &[T; N]) -> bool {
        self.values == *other
    }
}

impl<K, T: fmt::Debug, const N: usize> fmt::Debug for Per<K, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}

// A new variant makes the `match` below fail to compile until it has a place. A test checks that `ALL` holds every
// variant.

impl Key for Channel {
    const ALL: &'static [Self] = &Channel::ALL;

    #[inline]
    fn place(self) -> usize {
        match self {
            Self::MsgApp => 0,
            Self::Message => 1,
            Self::Pipeline => 2,
            Self::Snapshot => 3,
        }
    }
}

impl Key for StreamKind {
    const ALL: &'static [Self] = &StreamKind::ALL;

    #[inline]
    fn place(self) -> usize {
        match self {
            Self::MsgApp => 0,
            Self::Message => 1,
        }
    }
}

impl Key for Direction {
    const ALL: &'static [Self] = &Direction::ALL;

    #[inline]
    fn place(self) -> usize {
        match self {
            Self::In => 0,
            Self::Out => 1,
        }
    }
}

impl Key for DialPhase {
    const ALL: &'static [Self] = &DialPhase::ALL;

    #[inline]
    fn place(self) -> usize {
        match self {
            Self::Dns => 0,
            Self::Connect => 1,
            Self::Tls => 2,
        }
    }
}

impl Key for DropReason {
    const ALL: &'static [Self] = &DropReason::ALL;

    #[inline]
    fn place(self) -> usize {
        match self {
            Self::QueueFull => 0,
            Self::StreamLost => 1,
            Self::PostFailed => 2,
            Self::Refused => 3,
            Self::TooLarge => 4,
            Self::Paused => 5,
            Self::PeerRemoved => 6,
            Self::Promoted => 7,
            Self::Stopped => 8,
        }
    }
}

impl Key for RejectReason {
    const ALL: &'static [Self] = &RejectReason::ALL;

    #[inline]
    fn place(self) -> usize {
        match self {
            Self::QueueFull => 0,
            Self::Paused => 1,
            Self::Refused => 2,
            Self::Failed => 3,
            Self::Stopped => 4,
        }
    }
}

impl Key for MessageKind {
    const ALL: &'static [Self] = &MessageKind::ALL;

    #[inline]
    fn place(self) -> usize {
        self.index()
    }
}

#[cfg(test)]
mod tests {
    use serde::{
        Deserializer,
        de::{DeserializeOwned, Error as _, Visitor, value::Error},
        forward_to_deserialize_any,
    };

    use super::*;
    use crate::ledger::{AttemptResult, ProbeResult};

    fn each_key_has_its_place<K: Key + PartialEq + fmt::Debug>() {
        for (place, key) in K::ALL.iter().enumerate() {
            assert_eq!(key.place(), place, "{key:?}");
        }
    }

    #[test]
    fn every_key_has_the_place_at_which_it_is_listed() {
        each_key_has_its_place::<Channel>();
        each_key_has_its_place::<StreamKind>();
        each_key_has_its_place::<Direction>();
        each_key_has_its_place::<DialPhase>();
        each_key_has_its_place::<DropReason>();
        each_key_has_its_place::<RejectReason>();
        each_key_has_its_place::<MessageKind>();
    }

    /// Collects the names of an enum's variants from its derived `Deserialize`.
    struct Names(&'static [&'static str]);

    impl<'de> Deserializer<'de> for &mut Names {
        type Error = Error;

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            self.0 = variants;
            Err(Error::custom("there is no value"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("no enum"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }

    fn all_are_listed<K: DeserializeOwned + Copy>(listed: &[K], label: fn(K) -> &'static str) {
        let mut names = Names(&[]);
        assert!(K::deserialize(&mut names).is_err());
        assert!(!names.0.is_empty());
        assert_eq!(listed.iter().map(|key| label(*key)).collect::<Vec<_>>(), names.0);
    }

    #[test]
    fn each_variant_is_listed_in_its_order_and_serialized_by_its_label() {
        all_are_listed(&Channel::ALL, Channel::label);
        all_are_listed(&Direction::ALL, Direction::label);
        all_are_listed(&DialPhase::ALL, DialPhase::label);
        all_are_listed(&DropReason::ALL, DropReason::label);
        all_are_listed(&RejectReason::ALL, RejectReason::label);
        all_are_listed(&AttemptResult::ALL, AttemptResult::label);
        all_are_listed(&ProbeResult::ALL, ProbeResult::label);
    }

    #[test]
    fn a_value_is_found_under_its_key_alone() {
        let mut counts = PerChannel::<u64>::default();
        counts[Channel::Pipeline] += 3;
        assert_eq!(counts.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>(), [(Channel::Pipeline, &3)]);
        assert_eq!((counts[Channel::Message], counts.total()), (0, 3));
    }
}
