//! The day, from the seconds since 1970.

/// As in `2026-11-25`, UTC.
///
/// ```
/// assert_eq!(lora_pro_gpu_validation::date::day(0), "1970-01-01");
/// assert_eq!(lora_pro_gpu_validation::date::day(951_782_400), "2000-02-29");
/// ```
pub fn day(seconds: u64) -> String {
    let mut days = seconds / 86_400;
    let mut year = 1970;
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let february = days_of(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

fn days_of(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    365 + u64::from(leap)
}
