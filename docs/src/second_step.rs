//! How far A moves in its first steps: the tables of the chapter on numerics.
//!
//! They are computed here, stand in the chapter, and a test compares the two.

use lora_pro_core::{Config, Damping, Error, Hyper, Method, Preset, Schedule, XChoice};

use crate::toy::Toy;

/// |lr dA| / |A| in steps 1 to 5 of the full mode, by learning rate and damping.
///
/// # Errors
/// As [`Toy::step`].
pub fn by_rate() -> Result<String, Error> {
    let mut rows = Vec::new();
    for lr in [1e-6, 1e-5, 1e-4, 1e-3] {
        for damping in [
            Damping::None,
            Damping::Absolute(1e-8),
            Damping::Relative(0.1),
        ] {
            let config = Config::from(undamped(Method::Full).lr(lr).damping(damping));
            let name = [format!("{lr:.0e}"), words(damping)];
            rows.push((name, first_five(config)?));
        }
    }
    Ok(table("lr | damping | step 1 | 2 | 3 | 4 | 5", rows))
}

/// The same by method and X, at the learning rate 1e-4 and without damping.
///
/// # Errors
/// As [`Toy::step`].
pub fn by_method() -> Result<String, Error> {
    let mut rows = Vec::new();
    for method in [
        Method::Sgd,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ] {
        for x in [XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero] {
            let config = Config::from(undamped(method).x(x));
            rows.push(([method.to_string(), x.to_string()], first_five(config)?));
        }
    }
    Ok(table("method | X | step 1 | 2 | 3 | 4 | 5", rows))
}

/// With 120 steps of warm-up in the full mode: the largest |lr dA| / |A|, and |A| afterwards over
/// |A| before.
///
/// # Errors
/// As [`Toy::step`].
pub fn with_warm_up() -> Result<String, Error> {
    let mut rows = Vec::new();
    for x in [XChoice::Sylvester, XChoice::Symmetric, XChoice::Zero] {
        for damping in [
            Damping::None,
            Damping::Absolute(1e-8),
            Damping::Relative(0.1),
        ] {
            let hyper = undamped(Method::Full).x(x).damping(damping);
            let schedule = Schedule::Linear {
                warmup: 120,
                total: 1000,
            };
            let mut toy = Toy::new(Config::from(hyper).schedule(schedule))?;
            let before = toy.size_of_a();
            let mut largest = 0.0f64;
            for _ in 0..120 {
                largest = largest.max(toy.step()?);
            }
            let name = [x.to_string(), words(damping)];
            rows.push((name, vec![largest, toy.size_of_a() / before]));
        }
    }
    Ok(table("X | damping | largest step | growth of A", rows))
}

fn undamped(method: Method) -> Hyper {
    Preset::Paper
        .hyper()
        .method(method)
        .lr(1e-4)
        .damping(Damping::None)
}

fn first_five(config: Config) -> Result<Vec<f64>, Error> {
    let mut toy = Toy::new(config)?;
    (0..5).map(|_| toy.step()).collect()
}

fn words(damping: Damping) -> String {
    match damping {
        Damping::None => "none".into(),
        Damping::Absolute(d) => format!("absolute {d:.0e}"),
        Damping::Relative(c) => format!("relative {c}"),
        Damping::Cutoff(c) => format!("cutoff {c}"),
    }
}

/// A Markdown table: two names and some numbers in each row.
fn table(header: &str, rows: Vec<([String; 2], Vec<f64>)>) -> String {
    let rule = vec!["---"; header.split('|').count()].join("|");
    let mut text = format!("| {header} |\n|{rule}|\n");
    for (names, numbers) in rows {
        let numbers: Vec<String> = numbers.into_iter().map(digits).collect();
        text += &format!("| {} | {} |\n", names.join(" | "), numbers.join(" | "));
    }
    text
}

/// Few enough digits that the last bits of another machine's rounding cannot show.
fn digits(x: f64) -> String {
    if x < 10.0 {
        return format!("{x:.3}");
    }
    let unit = 10f64.powi(x.log10() as i32 - 1);
    format!("{:.0}", (x / unit).round() * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chapter_has_these_numbers() {
        let chapter = include_str!("../chapters/numerics.md");
        for table in [by_rate(), by_method(), with_warm_up()] {
            let table = table.unwrap();
            assert!(
                chapter.contains(&table),
                "numerics.md should have:\n{table}"
            );
        }
    }
}
