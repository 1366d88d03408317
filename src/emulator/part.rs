//! A part of a twin in up to three forms: what it says, what the store keeps of it, and what answers show of it.
//!
//! Invariant: all forms say the same. A part begins with one of the first two; any other is made when it is first asked
//! for, once, and is shared by all records that hold the part. So a write costs what it changes, and not the whole twin.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// What a part can hold.
pub trait Stored: Clone {
    /// The form the store keeps.
    type Form: Clone;

    /// Makes that form.
    fn to_stored(&self) -> Self::Form;

    /// Reads it. It was made by [`Stored::to_stored`], or looked through when the store was opened.
    fn of_stored(form: &Self::Form) -> Self;
}

/// A shared part, which is not changed in place.
pub struct Part<T: Stored>(Arc<Forms<T>>);

struct Forms<T: Stored> {
    value: OnceLock<T>,
    stored: OnceLock<T::Form>,
    shown: OnceLock<Box<[u8]>>,
}

impl<T: Stored> Part<T> {
    /// The part that says `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(Forms { value: OnceLock::from(value), stored: OnceLock::new(), shown: OnceLock::new() }))
    }

    /// The part that the store keeps as `form`, which is read only when somebody asks what it says.
    #[must_use]
    pub fn of_stored(form: T::Form) -> Self {
        Self(Arc::new(Forms { value: OnceLock::new(), stored: OnceLock::from(form), shown: OnceLock::new() }))
    }

    /// What the store keeps.
    #[must_use]
    pub fn stored(&self) -> &T::Form {
        self.0.stored.get_or_init(|| self.to_stored())
    }

    /// What answers show, which `show` makes.
    pub fn shown(&self, show: impl FnOnce(&Self) -> Vec<u8>) -> &[u8] {
        self.0.shown.get_or_init(|| show(self).into())
    }

    /// Whether both are one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Stored> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let stored = || self.0.stored.get().expect("a part begins with its value or its stored form");
        self.0.value.get_or_init(|| T::of_stored(stored()))
    }
}

impl<T: Stored> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Stored> From<T> for Part<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Stored + PartialEq> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || **self == **other
    }
}

impl<T: Stored + Eq> Eq for Part<T> {}

impl<T: Stored + fmt::Debug> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static READ: Cell<usize> = const { Cell::new(0) };
        static WRITTEN: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Number(u64);

    impl Stored for Number {
        type Form = String;

        fn to_stored(&self) -> String {
            WRITTEN.set(WRITTEN.get() + 1);
            self.0.to_string()
        }

        fn of_stored(form: &String) -> Self {
            READ.set(READ.get() + 1);
            Self(form.parse().unwrap())
        }
    }

    #[test]
    fn each_form_is_made_once_and_only_when_it_is_asked_for() {
        let part = Part::<Number>::of_stored("7".to_owned());
        let shared = part.clone();
        assert_eq!((part.stored().as_str(), READ.get()), ("7", 0));
        assert_eq!((&*shared, &*part, READ.get()), (&Number(7), &Number(7), 1));
        let show = |number: &Part<Number>| format!("<{}>", (**number).0).into_bytes();
        assert_eq!((part.shown(show), shared.shown(|_| unreachable!("it is there"))), (&b"<7>"[..], &b"<7>"[..]));
        let changed = Part::new(Number((*part).0 + 1));
        assert!(changed != part && changed == Part::of_stored("8".to_owned()) && !changed.is_same(&part));
        assert_eq!((changed.stored().as_str(), changed.clone().stored().as_str(), WRITTEN.get()), ("8", "8", 1));
        assert_eq!((changed.shown(show), READ.get()), (&b"<8>"[..], 2));
    }
}
