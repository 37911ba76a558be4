use std::{fmt, str::FromStr};

/// When a machine runs by itself: whenever the time since 1970 in milliseconds, modulo `period`, is `offset`. Masters give each
/// machine one, so that a fleet's runs are spread evenly, and a restart changes nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// In milliseconds; not 0.
    pub period: u64,
    /// In milliseconds; less than the period.
    pub offset: u64,
}

impl Slot {
    /// How long until the next turn, in milliseconds, at this time in milliseconds since 1970; a whole period when it is now.
    pub fn next(self, now: u64) -> u64 {
        let period = self.period.max(1);
        period - (now % period + period - self.offset % period) % period
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "period={}, offset={}", self.period, self.offset)
    }
}

/// The text is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot;

impl FromStr for Slot {
    type Err = NoSlot;

    fn from_str(text: &str) -> Result<Self, NoSlot> {
        let number = |name: &str| {
            let found = text.split(',').filter_map(|part| part.trim().split_once('='));
            found.into_iter().find(|(key, _)| *key == name).and_then(|(_, value)| value.parse::<u64>().ok())
        };
        match (number("period"), number("offset")) {
            (Some(period), Some(offset)) if offset < period => Ok(Self { period, offset }),
            _ => Err(NoSlot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_comes_at_its_offset_and_never_at_once() {
        let slot = Slot { period: 1_800_000, offset: 5_000 };
        assert_eq!(slot.next(0), 5_000);
        assert_eq!(slot.next(4_999), 1);
        assert_eq!(slot.next(5_000), 1_800_000);
        assert_eq!(slot.next(1_800_000 * 7 + 5_001), 1_799_999);
    }

    #[test]
    fn what_is_written_is_read() {
        let slot = Slot { period: 60_000, offset: 59_999 };
        assert_eq!(slot.to_string().parse(), Ok(slot));
        assert_eq!("offset=1,period=2, more=3".parse(), Ok(Slot { period: 2, offset: 1 }));
        for text in ["", "period=0, offset=0", "period=5", "period=5, offset=5", "period=x, offset=1"] {
            assert_eq!(text.parse::<Slot>(), Err(NoSlot), "{text}");
        }
    }
}
