//! Floats in the keys of calls that are taken for equal although their bits differ.

use super::read::Part;

/// Rounding of floats in the key of a call; the function gets its arguments as they are.
///
/// ```
/// use icechest::Round;
/// # let chest = icechest::Chest::temporary()?;
/// let stage = chest.stage("half").round(Round::to(0.01));
/// assert_eq!(*stage.arg("x", 0.1 + 0.2).run(|| 0.15)?, 0.15);
/// assert_eq!(*stage.arg("x", 0.3).run(|| -> f64 { unreachable!() })?, 0.15);
/// # Ok::<(), icechest::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    step: f64,
    depth: usize,
}

impl Round {
    /// To the nearest multiple of `step`, arguments that are floats themselves. A step that is not above zero rounds nothing.
    pub fn to(step: f64) -> Self {
        Self { step, depth: 0 }
    }

    /// Also floats that are in a list, a map or a struct, but not in one within another.
    pub fn shallow(self) -> Self {
        Self { depth: 1, ..self }
    }

    /// Also all floats within.
    pub fn deep(self) -> Self {
        Self { depth: usize::MAX, ..self }
    }

    fn apply(self, number: f64) -> f64 {
        let steps = number / self.step;
        // Beyond that a float has no fraction that could be rounded away.
        let is_countable = self.step > 0.0 && self.step.is_finite() && steps.abs() < (1u64 << 53) as f64;
        let rounded = steps.round() * self.step;
        if is_countable && rounded.is_finite() { rounded } else { number }
    }
}

/// Changes the floats of a key: those that are deep enough are rounded; zeros lose their sign if there is to be `one_zero`.
pub(super) fn change(part: &mut Part, round: Option<Round>, one_zero: bool) {
    let within = |part: &mut Part, round: Option<Round>| {
        let deeper = round.and_then(|round| Some(Round { depth: round.depth.checked_sub(1)?, ..round }));
        change(part, deeper, one_zero);
    };
    match part {
        Part::Float(number) => {
            if let Some(round) = round {
                *number = round.apply(*number);
            }
            if *number == 0.0 && (one_zero || round.is_some()) {
                *number = 0.0;
            }
        }
        Part::List(parts) => parts.iter_mut().for_each(|part| within(part, round)),
        Part::Map(entries) => entries.iter_mut().for_each(|(_, value)| within(value, round)),
        Part::Variant(_, Some(content)) => within(content, round),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use serde::Serialize;

    use super::Round;
    use crate::Key;
    use crate::key::signature::Reading;

    fn same(round: Round, one: impl Serialize, other: impl Serialize) -> bool {
        let reading = Reading { round: Some(round), ..Reading::default() };
        reading.read(&one).unwrap() == reading.read(&other).unwrap()
    }

    #[test]
    fn only_floats_that_are_deep_enough_are_rounded() {
        let (simple, shallow, deep) = (Round::to(0.1), Round::to(0.1).shallow(), Round::to(0.1).deep());
        for (round, expected) in [(simple, [true, false, false]), (shallow, [true, true, false]), (deep, [true; 3])] {
            let found = [same(round, 1.01, 1.02), same(round, [1.01], [1.02]), same(round, [[1.01]], [[1.02]])];
            assert_eq!(found, expected, "{round:?}");
        }
    }

    #[test]
    fn what_is_not_close_stays_apart() {
        assert!(!same(Round::to(0.1).deep(), 1.0, 1.2));
        assert!(!same(Round::to(0.1).deep(), 1, 2));
        assert!(!same(Round::to(0.0), 1.0, 1.0000001));
        assert!(!same(Round::to(-1.0), 1.0, 1.1));
        assert!(!same(Round::to(f64::INFINITY), 1.0, 2.0));
        assert!(same(Round::to(1.0), f64::NAN, f64::NAN));
        assert!(!same(Round::to(1e-300), 1.0, 2.0));
        assert!(!same(Round::to(1.0), f64::INFINITY, f64::MAX));
    }

    #[test]
    fn zeros_are_one_where_that_is_wanted() {
        let read = |one_zero, value: f64| Reading { one_zero, ..Reading::default() }.read(&value).unwrap();
        assert_ne!(read(false, 0.0), read(false, -0.0));
        assert_eq!(read(true, 0.0), read(true, -0.0));
        assert_eq!(read(true, -0.0).value, Key::of(&0.0).unwrap());
        assert!(same(Round::to(0.5), 0.1, -0.1));
    }
}
