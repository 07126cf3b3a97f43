//! Places in a region, with the type of what is there.

use core::fmt;
use core::marker::PhantomData;

/// A byte offset in a region at which a `T` stands. Plain arithmetic: the handle checks bounds at every access.
pub struct Off<T> {
    at: u64,
    what: PhantomData<fn() -> T>,
}

impl<T> Off<T> {
    /// The place `at` bytes from the region's start.
    #[inline(always)]
    pub const fn new(at: u64) -> Self {
        Off {
            at,
            what: PhantomData,
        }
    }

    /// Bytes from the region's start.
    #[inline(always)]
    pub const fn at(self) -> u64 {
        self.at
    }

    /// The place `bytes` further on, of the same type.
    ///
    /// # Panics
    /// If the sum exceeds 64 bits.
    #[inline(always)]
    pub const fn add(self, bytes: u64) -> Self {
        match self.at.checked_add(bytes) {
            Some(at) => Self::new(at),
            None => panic!("offset beyond 64 bits"),
        }
    }

    /// The `index`th `T` of an array that starts here.
    ///
    /// # Panics
    /// If the product or sum exceeds 64 bits.
    #[inline(always)]
    pub const fn index(self, index: u64) -> Self {
        match index.checked_mul(size_of::<T>() as u64) {
            Some(bytes) => self.add(bytes),
            None => panic!("offset beyond 64 bits"),
        }
    }

    /// The same place, seen as a `U`.
    #[inline(always)]
    pub const fn cast<U>(self) -> Off<U> {
        Off::new(self.at)
    }

    /// The place of a field; use the macro [`field!`](crate::field), which knows offset and type.
    #[doc(hidden)]
    #[inline(always)]
    pub fn project<F>(self, offset: usize, _field: impl FnOnce(&T) -> &F) -> Off<F> {
        self.add(offset as u64).cast()
    }
}

/// The place of a field of a structure: `field!(at, RawInode, i_links_count)` is an `Off` of the field's own type.
#[macro_export]
macro_rules! field {
    ($at:expr, $structure:ty, $($field:tt)+) => {{
        let at: $crate::Off<$structure> = $at;
        at.project(::core::mem::offset_of!($structure, $($field)+), |structure: &$structure| &structure.$($field)+)
    }};
}

impl<T> Clone for Off<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Off<T> {}

impl<T> PartialEq for Off<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Eq for Off<T> {}

impl<T> PartialOrd for Off<T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Off<T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<T> core::hash::Hash for Off<T> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.at.hash(state);
    }
}

impl<T> fmt::Debug for Off<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Off({:#x})", self.at)
    }
}
