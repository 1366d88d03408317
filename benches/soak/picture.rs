//! The run as a picture: memory, descriptors, queue and latency over time, in SVG.
//!
//! Invariant: it needs nothing beside itself: no script, no font of its own, no address.

use std::fmt::Write as _;

use crate::Wish;
use crate::record::{Record, Sample};

const WIDTH: f64 = 800.0;
/// Of one panel's field.
const HEIGHT: f64 = 120.0;
/// From one panel's field to the next, and from the top to the first.
const STEP: f64 = 172.0;
const TOP: f64 = 92.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const BLUE: &str = "#1f6feb";
const ORANGE: &str = "#d4580a";
const GREY: &str = "#57606a";
/// Of troubles: bands and deaths.
const BAND: &str = "#e7e9ec";
const DEATH: &str = "#c2354a";
/// About so many lines across a panel, and marks along the time.
const LINES: f64 = 4.0;
const MARKS: f64 = 10.0;

/// How a value becomes a height.
#[derive(Debug, Clone, Copy)]
enum Scale {
    /// From nothing to this.
    Linear(f64),
    /// By powers of ten; below the first of them everything is on the ground.
    Log(f64, f64),
}

impl Scale {
    /// From 0 to 1.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(most) => value / most,
            Self::Log(least, most) => (value.max(least) / least).log10() / (most / least).log10(),
        };
        share.clamp(0.0, 1.0)
    }

    /// Where lines are drawn, and how they are called.
    fn lines(self) -> Vec<(f64, String)> {
        match self {
            Self::Linear(most) => {
                let step = round_step(most / LINES);
                (0_u32..).map(|n| f64::from(n) * step).take_while(|at| *at <= most).map(|at| (at, short(at))).collect()
            }
            Self::Log(least, most) => {
                let first = 10_f64.powf(least.log10().ceil());
                let powers = (0..).map(|power| first * 10_f64.powi(power)).take_while(|at| *at <= most * 1.001);
                let ground = (least < first).then(|| (least, "0".to_owned()));
                ground.into_iter().chain(powers.map(|at| (at, short(at)))).collect()
            }
        }
    }
}

/// What a line of a panel shows.
type Curve<'c> = (&'c str, &'c str, &'c dyn Fn(&Sample) -> Option<f64>);

/// The picture.
pub(crate) fn draw(wish: &Wish, record: &Record) -> String {
    let end = record.samples.last().map_or(1.0, |sample| sample.at);
    let mut drawing = Drawing { svg: String::new(), end, panels: 0 };
    drawing.head(wish, record);
    drawing.curves(
        "Resident memory, MB",
        record,
        &[("daemon", BLUE, &|sample| sample.resident_mb[0]), ("hub", ORANGE, &|sample| sample.resident_mb[1])],
        linear,
    );
    drawing.curves(
        "Open descriptors",
        record,
        &[("daemon", BLUE, &|sample| sample.descriptors[0]), ("hub", ORANGE, &|sample| sample.descriptors[1])],
        linear,
    );
    drawing.curves(
        "Twins (log scale)",
        record,
        &[
            ("due in the queue", BLUE, &|sample| sample.queue),
            ("not known to be in sync", ORANGE, &|sample| sample.behind),
        ],
        |most| Scale::Log(0.5, most.max(10.0) * 1.3),
    );
    drawing.latencies(record);
    drawing.finish()
}

/// The picture in the making.
struct Drawing {
    svg: String,
    /// The last second.
    end: f64,
    panels: u32,
}

impl Drawing {
    fn x(&self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at / self.end).clamp(0.0, 1.0)
    }

    /// The top of the present panel's field.
    fn top(&self) -> f64 {
        TOP + f64::from(self.panels) * STEP
    }

    fn y(&self, share: f64) -> f64 {
        self.top() + HEIGHT * (1.0 - share)
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.svg.write_fmt(text).unwrap();
        self.svg.push('\n');
    }

    fn head(&mut self, wish: &Wish, record: &Record) {
        let height = TOP + STEP * 3.0 + HEIGHT + 44.0;
        self.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"13\" \
             fill=\"#1f2328\" role=\"img\">"
        ));
        let minutes = wish.time.as_secs() / 60;
        let title = format!("geminid soak: {minutes} min, {} twins, {} troubles", wish.twins, record.troubles.len());
        self.push(format_args!(
            "<title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
        ));
        self.push(format_args!("<text x=\"{LEFT}\" y=\"26\" font-size=\"17\" font-weight=\"600\">{title}</text>"));
        self.push(format_args!(
            "<rect x=\"{LEFT}\" y=\"39\" width=\"14\" height=\"12\" fill=\"{BAND}\"/><text x=\"{}\" y=\"50\">trouble</text>\
             <path d=\"M{} 38v14\" stroke=\"{DEATH}\" stroke-width=\"2\"/><text x=\"{}\" y=\"50\">a process was killed or \
             restarted</text>",
            LEFT + 20.0,
            LEFT + 90.0,
            LEFT + 97.0,
        ));
    }

    /// The field of a panel: troubles, lines and both axes. `legend` is names and colours.
    fn field(&mut self, title: &str, record: &Record, scale: Scale, legend: &[(&str, &str)]) {
        let top = self.top();
        let bands: Vec<[f64; 2]> = record
            .troubles
            .iter()
            .filter(|(_, _, trouble)| !trouble.is_death())
            .map(|(from, to, _)| [*from, *to])
            .collect();
        for [from, to] in bands {
            let (x, width) = (self.x(from), self.x(to) - self.x(from));
            self.push(format_args!("<path d=\"M{x:.1} {top}h{width:.1}v{HEIGHT}h-{width:.1}z\" fill=\"{BAND}\"/>"));
        }
        for (at, label) in scale.lines() {
            let y = self.y(scale.share(at));
            self.push(format_args!(
                "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#d0d7de\" stroke-width=\"0.7\"/>",
                WIDTH - RIGHT
            ));
            self.push(format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"{GREY}\">{label}</text>",
                LEFT - 7.0,
                y + 4.0
            ));
        }
        for (from, _, trouble) in &record.troubles {
            if trouble.is_death() {
                let x = self.x(*from);
                self.push(format_args!(
                    "<path d=\"M{x:.1} {top}v{HEIGHT}\" stroke=\"{DEATH}\" stroke-width=\"1.4\" opacity=\"0.75\"><title>{}</title></path>",
                    trouble.words()
                ));
            }
        }
        self.push(format_args!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"600\">{title}</text>", top - 9.0));
        let mut right = WIDTH - RIGHT;
        for (name, colour) in legend.iter().rev() {
            // Letters of this size are about seven units wide.
            right -= name.len() as f64 * 7.3;
            self.push(format_args!("<text x=\"{right:.0}\" y=\"{}\">{name}</text>", top - 9.0));
            self.push(format_args!(
                "<path d=\"M{:.0} {}h12\" stroke=\"{colour}\" stroke-width=\"3\" stroke-linecap=\"round\"/>",
                right - 18.0,
                top - 13.0
            ));
            right -= 36.0;
        }
        self.time_axis();
    }

    fn time_axis(&mut self) {
        let bottom = self.y(0.0);
        self.push(format_args!("<path d=\"M{LEFT} {bottom}H{}\" stroke=\"{GREY}\"/>", WIDTH - RIGHT));
        let step = round_step(self.end / 60.0 / MARKS);
        let last = self.end / 60.0;
        for minute in (0_u32..).map(|n| f64::from(n) * step).take_while(|minute| *minute <= last) {
            let (x, label) = (self.x(minute * 60.0), short(minute));
            let unit = if minute == 0.0 { " min" } else { "" };
            self.push(format_args!("<path d=\"M{x:.1} {bottom}v4\" stroke=\"{GREY}\"/>"));
            self.push(format_args!(
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{GREY}\">{label}{unit}</text>",
                bottom + 17.0
            ));
        }
    }

    fn curves(&mut self, title: &str, record: &Record, curves: &[Curve<'_>], scale: impl Fn(f64) -> Scale) {
        let values = curves.iter().flat_map(|(_, _, of)| record.samples.iter().filter_map(of));
        let scale = scale(values.fold(1.0, f64::max));
        let legend: Vec<(&str, &str)> = curves.iter().map(|(name, colour, _)| (*name, *colour)).collect();
        self.field(title, record, scale, &legend);
        for (_, colour, of) in curves {
            let mut path = String::new();
            let mut pen_is_down = false;
            for sample in &record.samples {
                let Some(value) = of(sample) else {
                    pen_is_down = false;
                    continue;
                };
                let command = if pen_is_down { 'L' } else { 'M' };
                write!(path, "{command}{:.1} {:.1}", self.x(sample.at), self.y(scale.share(value))).unwrap();
                pen_is_down = true;
            }
            self.push(format_args!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-linejoin=\"round\"/>"
            ));
        }
        self.panels += 1;
    }

    fn latencies(&mut self, record: &Record) {
        let worst = record.latencies.iter().map(|latency| latency.seconds).fold(1.0, f64::max);
        let scale = Scale::Log(0.1, 0.1 * 10_f64.powf((worst * 10.0).log10().ceil()));
        let legend = [("saved in calm", BLUE), ("saved in trouble or just after", ORANGE)];
        self.field("Saved to patched, s (log scale)", record, scale, &legend);
        for (troubled, (_, colour)) in [false, true].into_iter().zip(legend) {
            let mut path = String::new();
            for latency in record.latencies.iter().filter(|latency| latency.troubled == troubled) {
                write!(path, "M{:.1} {:.1}h0", self.x(latency.at), self.y(scale.share(latency.seconds))).unwrap();
            }
            self.push(format_args!(
                "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"3.4\" stroke-linecap=\"round\" opacity=\"0.7\"/>"
            ));
        }
        self.panels += 1;
    }

    fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

/// From nothing to a little more than the most.
fn linear(most: f64) -> Scale {
    Scale::Linear(most * 1.08)
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
    steps.into_iter().find(|step| *step >= least * 0.999).unwrap_or(power)
}

/// A number without needless zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
