//! Lists of a Job's indexes as text, like `0,3-5`.

/// An interval of indexes, both ends included.
type Interval = (i64, i64);

/// The number of indexes in the list `text`, all of them less than `completions` and in ascending order.
///
/// # Errors
/// What is wrong with the list.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last = None;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval(text: &str, completions: i64) -> Result<Interval, String> {
    let index = |text: &str| {
        let index: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if index >= completions { Err(format!("too large index: {text:?}")) } else { Ok(index) }
    };
    match text.split('-').collect::<Vec<_>>()[..] {
        [only] => index(only).map(|only| (only, only)),
        [first, last] => match (index(first)?, index(last)?) {
            (first, last) if first >= last => {
                Err(format!("non-increasing order, previous: {first}, current: {last}"))
            }
            ends => Ok(ends),
        },
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_or_refused() {
        let rows = [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0,2-4,9", Ok(5)),
            ("10", Err("too large index: \"10\"")),
            ("3-12", Err("too large index: \"12\"")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            ("1,", Err("cannot convert string to integer for index: \"\"")),
            ("2-2", Err("non-increasing order, previous: 2, current: 2")),
            ("2-4,4", Err("non-increasing order, previous: 4, current: 4")),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
        ];
        for (text, expect) in rows {
            assert_eq!(count(text, 10), expect.map_err(str::to_owned), "{text}");
        }
    }
}
