//! The charts as one picture, for slides and for the README: SVG that needs nothing but itself.
//!
//! Application, above L4. Deliberately not here: the charts (`plots`).

use std::fmt::{self, Write};

use crate::compare::charts::{Error, NARROW, Svg};
use crate::compare::page::escape;
use crate::compare::palette::{self, Family, INK, MUTED, hex};
use crate::compare::plots;
use crate::compare::results::Comparison;

const MARGIN: u32 = 70;
const GAP: u32 = 80;
const TITLE: u32 = 100;
const HEAD: u32 = 90;
const FOOT: u32 = 70;

/// The whole picture; nothing if nothing was measured.
pub(crate) fn svg(comparison: &Comparison) -> Result<Option<String>, Error> {
    if plots::measured(comparison).is_empty() {
        return Ok(None);
    }
    let mut figures = vec![
        plots::throughput(comparison, NARROW)?,
        plots::latency(comparison, NARROW)?,
        plots::effort(comparison, NARROW)?,
    ];
    figures.extend(plots::memory(comparison, NARROW)?);
    let charts: Vec<(&str, &Svg)> = figures
        .iter()
        .flat_map(|figure| figure.panels.iter().map(|panel| (figure.title, &panel.svg)))
        .collect();
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_picture(&mut text, comparison, &charts);
    Ok(Some(text))
}

/// Two charts beside one another, from the top down.
fn write_picture(
    text: &mut String,
    comparison: &Comparison,
    charts: &[(&str, &Svg)],
) -> fmt::Result {
    let chart_width = charts.iter().map(|(_, svg)| svg.width).max().unwrap_or(0);
    let chart_height = charts.iter().map(|(_, svg)| svg.height).max().unwrap_or(0);
    let lines = charts.len().div_ceil(2) as u32;
    let width = 2 * MARGIN + 2 * chart_width + GAP;
    let height = MARGIN + HEAD + lines * (TITLE + chart_height + GAP) + FOOT;
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{}\" height=\"{}\" font-family=\"system-ui, -apple-system, Segoe UI, \
         DejaVu Sans, sans-serif\">\n<title>The server's models, compared</title>\n\
         <style>svg text{{font-family:inherit}}\n.page{{fill:#ffffff}}\n\
         @media (prefers-color-scheme: dark){{.page{{fill:#0f1318}}\n{}}}</style>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"24\"/>",
        width / 2,
        height / 2,
        palette::dark_rules(),
    )?;
    write_legend(text, comparison)?;
    for (number, (title, svg)) in (0..).zip(charts) {
        let x = MARGIN + (number % 2) * (chart_width + GAP);
        let y = MARGIN + HEAD + (number / 2) * (TITLE + chart_height + GAP);
        writeln!(
            text,
            "<text x=\"{x}\" y=\"{}\" font-size=\"46\" font-weight=\"600\" fill=\"{}\">{}</text>\n\
             <svg x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\">\n{}</svg>",
            y + 50,
            hex(INK),
            escape(title),
            y + TITLE,
            svg.width,
            svg.height,
            svg.width,
            svg.height,
            svg.body,
        )?;
    }
    let (settings, machine) = (&comparison.settings, &comparison.machine);
    let foot = format!(
        "{} connections, messages of {} bytes, {}; {}, {}, {}",
        settings.connections,
        settings.size_bytes,
        settings.what_is_shown(),
        machine.processor,
        machine.system,
        machine.date,
    );
    writeln!(
        text,
        "<text x=\"{MARGIN}\" y=\"{}\" font-size=\"28\" fill=\"{}\">{}</text>\n</svg>",
        height - MARGIN,
        hex(MUTED),
        escape(&foot),
    )
}

/// Which colour stands for which family.
fn write_legend(text: &mut String, comparison: &Comparison) -> fmt::Result {
    let mut x = MARGIN;
    for family in Family::ALL {
        let mut models = plots::measured(comparison).into_iter();
        if models.all(|(model, _)| Family::of(&model.name) != family) {
            continue;
        }
        let title = family.title();
        writeln!(
            text,
            "<rect x=\"{x}\" y=\"{MARGIN}\" width=\"28\" height=\"28\" rx=\"5\" fill=\"{}\"/>\n\
             <text x=\"{}\" y=\"{}\" font-size=\"30\" fill=\"{}\">{title}</text>",
            hex(family.colour()),
            x + 42,
            MARGIN + 25,
            hex(INK),
        )?;
        // Letters are not measured: these are about as wide as most fonts have them.
        x += 42 + 17 * title.len() as u32 + 40;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::table::tests::comparison;

    #[test]
    fn the_picture_has_all_charts() {
        // Goal: four charts with their titles, and none without numbers. Method: both comparisons.
        let mut comparison = comparison();
        let picture = svg(&comparison).unwrap().unwrap();
        assert_eq!(picture.matches("<svg ").count(), 5);
        assert_eq!(picture.matches("</svg>").count(), 5);
        assert!(picture.contains("Green threads") && !picture.contains("told by the kernel"));
        assert!(picture.contains("How many requests a second?"));
        comparison.models.clear();
        assert!(svg(&comparison).unwrap().is_none());
    }
}
