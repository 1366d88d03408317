//! Medians, ratios, and how figures are written.

/// The middle one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The middle of the ratios of figures that were taken in the same round.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to).collect())
}

/// Seconds, or milliseconds where a second is long.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

/// A figure with three digits that matter.
pub(crate) fn short(figure: f64) -> String {
    match figure {
        _ if figure >= 100.0 => grouped(figure),
        _ if figure >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as megabytes.
pub(crate) fn megabytes(bytes: f64) -> String {
    format!("{} MB", short(bytes / 1e6))
}

/// The least and the most, where there is more than one.
pub(crate) fn range(figures: &[f64]) -> String {
    let (least, most) =
        (figures.iter().copied().fold(f64::INFINITY, f64::min), figures.iter().copied().fold(0.0, f64::max));
    if figures.len() < 2 { String::new() } else { format!(" ({} - {})", seconds(least), seconds(most)) }
}
