//! A list that most often has one element, which it holds without memory of its own.

use std::ops::{Deref, DerefMut};

/// A list.
#[derive(Debug, Clone)]
pub(super) enum Few<T> {
    One(T),
    /// Any other number.
    Many(Vec<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few::Many(Vec::new())
    }
}

impl<T> Few<T> {
    /// Appends an element.
    pub(super) fn push(&mut self, element: T) {
        match self {
            Few::Many(many) if many.is_empty() => *self = Few::One(element),
            Few::Many(many) => many.push(element),
            Few::One(_) => {
                let many = self.as_vec();
                // Two are far more likely than three.
                many.reserve_exact(1);
                many.push(element);
            }
        }
    }

    /// Returns the list in a form of which elements can be removed.
    pub(super) fn as_vec(&mut self) -> &mut Vec<T> {
        *self = match std::mem::take(self) {
            Few::One(element) => Few::Many(vec![element]),
            many @ Few::Many(_) => many,
        };
        match self {
            Few::Many(many) => many,
            Few::One(_) => unreachable!("it was just replaced"),
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::One(element) => std::slice::from_ref(element),
            Few::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::One(element) => std::slice::from_mut(element),
            Few::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves_like_a_vector() {
        let (mut few, mut model) = (Few::default(), Vec::new());
        let mut random = fastrand::Rng::with_seed(3);
        for number in 0..2_000_u32 {
            let remainder = random.u32(..3);
            match random.u8(..4) {
                0 => {
                    few.as_vec().retain(|at| at % 3 != remainder);
                    model.retain(|at| at % 3 != remainder);
                }
                1 => {
                    few.iter_mut().for_each(|at| *at += 1);
                    model.iter_mut().for_each(|at| *at += 1);
                }
                _ => {
                    few.push(number);
                    model.push(number);
                }
            }
            if random.u8(..8) == 0 {
                (few, model) = (Few::default(), Vec::new());
            }
            assert_eq!(*few, *model);
        }
    }
}
