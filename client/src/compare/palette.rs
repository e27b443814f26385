//! Which models belong together, and the colours of the report.
//!
//! Application, above L4. The hues are those of Okabe and Ito, which stay apart for people who do
//! not see red or green as others do; some are darker here, to be read on white. Charts are drawn
//! in the colours of a light page; the page's style gives each of them another one where the
//! reader wants it dark, which is why nothing but these colours may be drawn with.
//!
//! Deliberately not here: what is drawn (`charts`).

use plotters::style::RGBColor;

pub(crate) const INK: RGBColor = RGBColor(0x1b, 0x1f, 0x24);
pub(crate) const MUTED: RGBColor = RGBColor(0x57, 0x60, 0x6a);
pub(crate) const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xea);
/// Curves that are there only to be compared with.
pub(crate) const GHOST: RGBColor = RGBColor(0xc9, 0xce, 0xd6);

const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const GREEN: RGBColor = RGBColor(0x00, 0x8a, 0x64);
const PURPLE: RGBColor = RGBColor(0xb4, 0x54, 0x8c);
const OCHRE: RGBColor = RGBColor(0xa0, 0x74, 0x00);
const INDIGO: RGBColor = RGBColor(0x5b, 0x4b, 0xb0);

/// The curves of one chart, one after the other.
const CURVES: [RGBColor; 6] = [BLUE, VERMILION, GREEN, PURPLE, OCHRE, INDIGO];

/// Each colour with the one that stands for it on a dark page.
const DARK: [(RGBColor, &str); 10] = [
    (INK, "#e6eaf0"),
    (MUTED, "#a3adb8"),
    (GRID, "#2a3139"),
    (GHOST, "#48525d"),
    (BLUE, "#5cb8f2"),
    (VERMILION, "#ff8a3d"),
    (GREEN, "#34d3a0"),
    (PURPLE, "#e79ac4"),
    (OCHRE, "#f0c040"),
    (INDIGO, "#aaa4ff"),
];

/// The colour of a chart's curve number `index`.
pub(crate) fn curve(index: usize) -> RGBColor {
    CURVES[index % CURVES.len()]
}

/// A colour as HTML and SVG write it, in the spelling of the charts.
pub(crate) fn hex(colour: RGBColor) -> String {
    let RGBColor(red, green, blue) = colour;
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// The rules that turn the charts' colours into those of a dark page.
pub(crate) fn dark_rules() -> String {
    let mut rules = String::new();
    for (light, dark) in DARK {
        let light = hex(light);
        rules += &format!("svg [fill=\"{light}\"]{{fill:{dark}}}\n");
        rules += &format!("svg [stroke=\"{light}\"]{{stroke:{dark}}}\n");
    }
    rules
}

/// Models that are alike in what matters.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// The kernel divides the time among threads of control of its own.
    Kernel,
    /// One thread of control, and readiness asked for.
    Loop,
    /// One thread of control, and the kernel reports by itself.
    Report,
    Green,
    /// Not known here.
    Other,
}

impl Family {
    pub(crate) const ALL: [Family; 5] = [
        Family::Kernel,
        Family::Loop,
        Family::Report,
        Family::Green,
        Family::Other,
    ];

    /// The family of the model with this name.
    pub(crate) fn of(model: &str) -> Family {
        match model {
            "blocking" | "threads" | "thread-pool" | "fork" | "prefork" => Family::Kernel,
            "nonblocking" | "select" | "poll" | "epoll" | "kqueue" | "selector" => Family::Loop,
            "signal" | "aio" => Family::Report,
            "green" | "green-workers" | "prefork-green" => Family::Green,
            _ => Family::Other,
        }
    }

    pub(crate) fn colour(self) -> RGBColor {
        match self {
            Family::Kernel => VERMILION,
            Family::Loop => BLUE,
            Family::Report => PURPLE,
            Family::Green => GREEN,
            Family::Other => MUTED,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Family::Kernel => "Threads and processes of the kernel",
            Family::Loop => "One loop that asks which sockets are ready",
            Family::Report => "One loop that is told by the kernel",
            Family::Green => "Green threads",
            Family::Other => "Others",
        }
    }

    /// What they have in common, in a sentence.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Family::Kernel => {
                "Each connection has a thread or process that simply waits in read and write; the \
                 kernel switches between them."
            }
            Family::Loop => {
                "A single thread asks about all sockets, then reads and writes where it need not \
                 wait; what a connection still has to send is kept in a queue of its own."
            }
            Family::Report => {
                "A single thread is told by the kernel that a socket has become ready, or that an \
                 operation is done."
            }
            Family::Green => {
                "Each connection has a stack of its own and code that looks blocking; where it \
                 would wait, the runtime switches to another, without the kernel."
            }
            Family::Other => "Models that this client does not know.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_has_a_dark_one() {
        // Goal: nothing is drawn in a colour that a dark page would leave as it is. Method: looks
        // each one up in the rules.
        let rules = dark_rules();
        let families = Family::ALL.map(Family::colour);
        let others = [INK, MUTED, GRID, GHOST];
        let curves = (0..10).map(curve);
        for colour in families.into_iter().chain(others).chain(curves) {
            assert!(rules.contains(&hex(colour)), "{}", hex(colour));
        }
    }
}
