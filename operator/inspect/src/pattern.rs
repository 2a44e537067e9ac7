//! Patterns of file names, as the hub's own tools have them: `*` stands for any number of
//! characters, slashes too, and `?` for one. Pure.

/// Whether `name` is what `pattern` describes. Takes time in proportion to the product of the
/// lengths at worst.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The last `*`, and where what it stands for ends so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((at, end)) => {
                    *end += 1;
                    (p, n) = (*at + 1, *end);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in [
            ("a.gguf", "a.gguf"),
            ("*.gguf", "a.gguf"),
            ("*Q4_K_M*.gguf", "Q4_K_M/x-Q4_K_M-00001-of-00002.gguf"),
            ("*", "a/b"),
            ("", ""),
            ("**a?c*", "xxabc"),
            ("*aab", "aaaab"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a.gguf", "b/a.gguf"), ("*.gguf", "a.ggu"), ("?", ""), ("a?", "a"), ("", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        // Not exponential.
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
        assert!(!matches(&("*a".repeat(100) + "b"), &"a".repeat(1000)));
    }
}
