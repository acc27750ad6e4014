//! Does any text make the reader panic? Mutations of what an operator may write, with a fixed seed.

use super::faults::FAULTS;
use super::{DOCUMENTED, FIRE, SHIP, findings};

/// A small generator with a fixed seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap()
    }
}

/// One of: a character replaced, a piece cut, a piece of another text put in.
fn mutate(text: &str, other: &str, chance: &mut Chance) -> String {
    const ODD: &[&str] = &[
        "\"",
        "[",
        "]",
        "=",
        "{",
        "}",
        "\n",
        "#",
        "${",
        "$$",
        "\0",
        "é",
        "-1",
        "1e999",
        "\t",
        "'''",
        "[[rule]]\n",
        "18446744073709551616",
        "mqtt://[",
        "0x",
        ".",
        ",",
        "\u{feff}",
        "🜁",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=chance.below(4) {
        let at = chance.below(chars.len());
        let end = (at + chance.below(12)).min(chars.len());
        let put: Vec<char> = match chance.below(3) {
            0 => Vec::new(),
            1 => ODD[chance.below(ODD.len())].chars().collect(),
            _ => {
                let from = chance.below(other.len());
                other.chars().skip(from).take(chance.below(40)).collect()
            }
        };
        chars.splice(at..end, put);
    }
    chars.into_iter().collect()
}

#[test]
fn does_no_text_make_it_panic() {
    let everything: String = DOCUMENTED
        .lines()
        .filter(|line| !line.starts_with("# ") && !line.is_empty())
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    let texts = [everything.as_str(), FIRE, SHIP];
    let mut chance = Chance(0x5eed);
    for _ in 0..600 {
        let text = texts[chance.below(3)];
        let other = texts[chance.below(3)];
        let mutated = mutate(text, other, &mut chance);
        let told = findings(&mutated);
        assert!(told.to_string().len() < 1 << 20);
    }
    for (text, ..) in FAULTS {
        for _ in 0..20 {
            let _ = findings(&mutate(text, &everything, &mut chance)).to_string();
        }
    }
}
