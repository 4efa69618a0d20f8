//! Sets of completion indexes as intervals, since a Job may have millions of them in few runs.

/// A set of indexes: intervals in ascending order with gaps between them, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<(usize, usize)>);

impl Intervals {
    /// Reads a list as in `completedIndexes`, like `0,2-4,7`: the part of it below `end`. What cannot be read is left out.
    pub fn parse(text: &str, end: usize) -> Self {
        let interval = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            (first < end && first <= last).then(|| (first, last.min(end - 1)))
        };
        Self::of(text.split(',').filter_map(interval).collect())
    }

    fn of(mut all: Vec<(usize, usize)>) -> Self {
        all.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// The union with single indexes.
    pub fn with(&self, indexes: impl IntoIterator<Item = usize>) -> Self {
        Self::of(self.0.iter().copied().chain(indexes.into_iter().map(|i| (i, i))).collect())
    }

    /// The union with another set.
    pub fn union(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).copied().collect())
    }

    /// The number of indexes.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there is no index.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an index is in the set.
    pub fn contains(&self, index: usize) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after > 0 && index <= self.0[after - 1].1
    }

    /// The number of indexes that are in both sets.
    pub fn common(&self, other: &Self) -> usize {
        let (mut a, mut b, mut common) = (0, 0, 0);
        while let (Some(one), Some(two)) = (self.0.get(a), other.0.get(b)) {
            let (first, last) = (one.0.max(two.0), one.1.min(two.1));
            common += (last + 1).saturating_sub(first);
            if one.1 <= two.1 { a += 1 } else { b += 1 }
        }
        common
    }

    /// The indexes below `end` that are not in the set, in ascending order.
    pub fn missing(&self, end: usize) -> impl Iterator<Item = usize> + '_ {
        let starts = std::iter::once(0).chain(self.0.iter().map(|(_, last)| last + 1));
        let ends = self.0.iter().map(|(first, _)| *first).chain(std::iter::once(end));
        starts.zip(ends).flat_map(move |(from, to)| from..to.min(end))
    }
}

impl std::fmt::Display for Intervals {
    /// As in `completedIndexes`: two neighbours are written as such, more as an interval.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_joined_and_written() {
        for (text, end, expect, count) in [
            ("", 9, "", 0),
            ("3", 9, "3", 1),
            ("0,1", 9, "0,1", 2),
            ("0-2,5,7,8", 9, "0-2,5,7,8", 6),
            ("5,1-3,2,4", 9, "1-5", 5),
            ("0-100", 9, "0-8", 9),
            ("9,x,4-2,-", 9, "", 0),
            ("0-2000000000", 1_500_000_000, "0-1499999999", 1_500_000_000),
        ] {
            let set = Intervals::parse(text, end);
            assert_eq!((set.to_string().as_str(), set.len()), (expect, count), "{text}");
        }
        let set = Intervals::parse("1-3,6", 10);
        assert_eq!(set.with([4, 8, 6]).to_string(), "1-4,6,8");
        assert_eq!(set.union(&Intervals::parse("4,5,9", 10)).to_string(), "1-6,9");
        assert_eq!(set.missing(9).collect::<Vec<_>>(), [0, 4, 5, 7, 8]);
        assert_eq!(set.missing(2).collect::<Vec<_>>(), [0]);
        assert_eq!(Intervals::default().missing(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!([0, 1, 3, 4, 6, 7].map(|i| set.contains(i)), [false, true, true, false, true, false]);
        assert_eq!(set.common(&Intervals::parse("0-2,6-9", 10)), 3);
        assert_eq!(set.common(&Intervals::default()), 0);
    }
}
