//! The charts: bars, dots on a logarithmic scale, and curves, as SVG.
//!
//! Application, above L4. plotters maps the numbers to places and writes the SVG; what is drawn,
//! and where the words stand, is decided here. Two units are a pixel at the size the charts are
//! made for, because plotters puts everything at whole units. Every curve has its name at its end,
//! so that nobody has to look colours up.
//!
//! Deliberately not here: which charts there are (`page`, `picture`).

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, EmptyElement, PathElement, Rectangle, Text};
use plotters::prelude::{Cartesian2d, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

use crate::compare::palette::{GHOST, GRID, INK, MUTED};

/// Why a chart could not be drawn.
pub(crate) type Error = DrawingAreaErrorKind<std::io::Error>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Letters, in units.
const LETTERS: f64 = 33.0;
const LETTERS_SMALL: f64 = 29.0;
const ROW: u32 = 60;
const LINE: u32 = 5;
const HAIR: u32 = 2;

/// A chart as it stands in a page.
#[derive(Debug)]
pub(crate) struct Svg {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// What stands between the tags.
    pub(crate) body: String,
}

/// One scale of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) title: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Places on the scale, with what stands there.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From nothing to a little more than `most`, with round numbers.
    pub(crate) fn linear(title: &str, most: f64, label: impl Fn(f64) -> String) -> Axis {
        let most = if most > 0.0 { most } else { 1.0 };
        let magnitude = 10_f64.powf((most / 4.0).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * magnitude);
        let step = steps.into_iter().find(|step| most / step <= 5.0);
        let step = step.unwrap_or(most);
        let ticks = (0..)
            .map(|count| f64::from(count) * step)
            .take_while(|tick| *tick <= most * 1.02)
            .map(|tick| match tick {
                0.0 => (tick, "0".to_owned()),
                _ => (tick, label(tick)),
            });
        Axis {
            title: title.to_owned(),
            from: 0.0,
            to: most * 1.02,
            ticks: ticks.collect(),
        }
    }

    /// Powers of ten around all `numbers`, and 2 and 5 times them if they are few. Places on the
    /// scale are logarithms.
    pub(crate) fn logarithmic(
        title: &str,
        numbers: impl Iterator<Item = f64>,
        label: impl Fn(f64) -> String,
    ) -> Axis {
        let logarithms = numbers.filter(|number| *number > 0.0).map(f64::log10);
        let (least, most) = logarithms.fold((f64::MAX, f64::MIN), |(least, most), number| {
            (least.min(number), most.max(number))
        });
        let (least, most) = if least > most {
            (0.0, 1.0)
        } else {
            (least, most)
        };
        let from = (least - 0.05).floor();
        let to = (most + 0.05).ceil();
        let factors: &[f64] = if to - from <= 2.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let decades = (from as i32)..=(to as i32);
        let ticks = decades
            .flat_map(|decade| {
                factors
                    .iter()
                    .map(move |factor| factor * 10_f64.powi(decade))
            })
            .filter(|number| number.log10() <= to + 1e-9)
            .map(|number| (number.log10(), label(number)));
        Axis {
            title: title.to_owned(),
            from,
            to,
            ticks: ticks.collect(),
        }
    }
}

/// One row of a chart of bars or dots.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Where on the axis it ends; of dots there may be several, from the left to the right.
    pub(crate) places: Vec<f64>,
    /// What stands behind it.
    pub(crate) label: String,
    pub(crate) colour: RGBColor,
    /// Drawn pale, because it cannot be compared with the others without a word.
    pub(crate) is_pale: bool,
}

/// What stands in a row.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// For axes that begin at nothing.
    Bar,
    /// For logarithmic axes, which have no nothing to begin at.
    Dots,
}

/// How wide rows are where there is the width of a page, and where two stand beside one another.
pub(crate) const WIDE: u32 = 1_800;
pub(crate) const NARROW: u32 = 1_380;

/// A row each, from the top down.
pub(crate) fn rows(rows: &[Row], axis: &Axis, mark: Mark, width: u32) -> Result<Svg, Error> {
    let count = rows.len() as f64;
    let height = ROW * rows.len() as u32 + 130;
    draw(width, height, |root| {
        let mut plane = ChartBuilder::on(root)
            .margin_top(10)
            .margin_right(430)
            .x_label_area_size(120)
            .y_label_area_size(270)
            .build_cartesian_2d(axis.from..axis.to, 0.0..count)?;
        draw_scale_below(&mut plane, axis, (0.0, count))?;
        for (index, row) in rows.iter().enumerate() {
            let middle = count - index as f64 - 0.5;
            let place = row.places.last().copied().unwrap_or(axis.from);
            match mark {
                Mark::Bar => {
                    let strength = if row.is_pale { 0.4 } else { 1.0 };
                    let corners = [(axis.from, middle - 0.36), (place, middle + 0.36)];
                    let bar = Rectangle::new(corners, row.colour.mix(strength).filled());
                    plane.draw_series([bar])?;
                }
                Mark::Dots => draw_dots(&mut plane, row, middle, axis.from)?,
            }
            let name = text(&row.name, (-28, 0), LETTERS, INK, HPos::Right);
            plane.draw_series([EmptyElement::at((axis.from, middle)) + name])?;
            let label = text(&row.label, (22, 0), LETTERS_SMALL, INK, HPos::Left);
            plane.draw_series([EmptyElement::at((place, middle)) + label])?;
        }
        Ok(())
    })
}

/// Dots on a thread, which begins at the first of several, or else at the axis.
fn draw_dots(plane: &mut Plane<'_>, row: &Row, middle: f64, from: f64) -> Result<(), Error> {
    let (first, last) = match row.places[..] {
        [] => return Ok(()),
        [only] => (from, only),
        [first, .., last] => (first, last),
    };
    let thread = PathElement::new(
        vec![(first, middle), (last, middle)],
        stroke(row.colour, HAIR),
    );
    plane.draw_series([thread])?;
    for (index, place) in row.places.iter().enumerate() {
        // The first is the one that most people look for.
        let radius = if index == 0 { 13 } else { 9 };
        let style = if row.is_pale {
            stroke(row.colour, LINE)
        } else {
            row.colour.filled()
        };
        plane.draw_series([Circle::new((*place, middle), radius, style)])?;
    }
    Ok(())
}

/// One curve; those without a colour are there only to be compared with.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) colour: Option<RGBColor>,
    /// Whether each point is a measurement of its own, and shown.
    pub(crate) has_dots: bool,
}

/// Curves over one plane, each with its name behind its end.
pub(crate) fn curves(lines: &[Line], x: &Axis, y: &Axis) -> Result<Svg, Error> {
    draw(960, 660, |root| {
        let mut plane = ChartBuilder::on(root)
            .margin_top(60)
            .margin_right(215)
            .x_label_area_size(110)
            .y_label_area_size(120)
            .build_cartesian_2d(x.from..x.to, y.from..y.to)?;
        draw_scale_below(&mut plane, x, (y.from, y.to))?;
        draw_scale_left(&mut plane, y, (x.from, x.to))?;
        for line in lines.iter().filter(|line| line.colour.is_none()) {
            plane.draw_series([PathElement::new(line.points.clone(), stroke(GHOST, HAIR))])?;
        }
        let mut ends = Vec::new();
        for line in lines {
            let (Some(colour), Some(end)) = (line.colour, line.points.last()) else {
                continue;
            };
            let drawn = PathElement::new(line.points.clone(), stroke(colour, LINE));
            plane.draw_series([drawn])?;
            if line.has_dots {
                let dots = line.points.iter();
                plane.draw_series(dots.map(|at| Circle::new(*at, 8, colour.filled())))?;
            }
            ends.push((plane.backend_coord(end), colour, line.name.as_str()));
        }
        let (right, top) = plane.backend_coord(&(x.to, y.to));
        let (_, bottom) = plane.backend_coord(&(x.to, y.from));
        draw_names(root, ends, right, (top, bottom))
    })
}

/// Puts the names beside the ends of their curves, apart from one another.
fn draw_names(
    root: &Area<'_>,
    mut ends: Vec<((i32, i32), RGBColor, &str)>,
    right: i32,
    (top, bottom): (i32, i32),
) -> Result<(), Error> {
    const APART: i32 = 38;
    ends.sort_by_key(|((_, y), ..)| *y);
    let wanted: Vec<i32> = ends.iter().map(|((_, y), ..)| *y).collect();
    let places = spread(&wanted, APART, (top, bottom));
    for (((x, y), colour, name), place) in ends.into_iter().zip(places) {
        let way = vec![(x + 10, y), (right + 14, place), (right + 24, place)];
        root.draw(&PathElement::new(way, stroke(colour, HAIR)))?;
        let at = (right + 32, place);
        root.draw(&text(name, at, LETTERS_SMALL, colour, HPos::Left))?;
    }
    Ok(())
}

/// Places in ascending order, near those that are wanted, and at least `apart` from one another.
fn spread(wanted: &[i32], apart: i32, (top, bottom): (i32, i32)) -> Vec<i32> {
    let mut places = wanted.to_vec();
    let mut least = top;
    for place in &mut places {
        *place = (*place).max(least);
        least = *place + apart;
    }
    // What was pushed out at the bottom moves up again, and whoever is in its way.
    let mut most = bottom;
    for place in places.iter_mut().rev() {
        *place = (*place).min(most);
        most = *place - apart;
    }
    places
}

fn draw(
    width: u32,
    height: u32,
    content: impl FnOnce(&Area<'_>) -> Result<(), Error>,
) -> Result<Svg, Error> {
    let mut whole = String::new();
    {
        let root = SVGBackend::with_string(&mut whole, (width, height)).into_drawing_area();
        content(&root)?;
        root.present()?;
    }
    // The outer tag is the page's affair.
    let begin = whole.find('>').map_or(0, |at| at + 1);
    let end = whole.rfind("</svg>").unwrap_or(whole.len());
    Ok(Svg {
        width,
        height,
        body: whole[begin..end].to_owned(),
    })
}

/// Lines across the plane, the numbers below it, and the title below them.
fn draw_scale_below(
    plane: &mut Plane<'_>,
    axis: &Axis,
    (from, to): (f64, f64),
) -> Result<(), Error> {
    for (place, label) in &axis.ticks {
        let way = vec![(*place, from), (*place, to)];
        plane.draw_series([PathElement::new(way, stroke(GRID, HAIR))])?;
        let label = text(label, (0, 30), LETTERS_SMALL, MUTED, HPos::Center);
        plane.draw_series([EmptyElement::at((*place, from)) + label])?;
    }
    let title = text(&axis.title, (0, 82), LETTERS_SMALL, MUTED, HPos::Right);
    plane.draw_series([EmptyElement::at((axis.to, from)) + title])?;
    Ok(())
}

/// Lines along the plane, the numbers left of it, and the title above them.
fn draw_scale_left(
    plane: &mut Plane<'_>,
    axis: &Axis,
    (from, to): (f64, f64),
) -> Result<(), Error> {
    for (place, label) in &axis.ticks {
        let way = vec![(from, *place), (to, *place)];
        plane.draw_series([PathElement::new(way, stroke(GRID, HAIR))])?;
        let label = text(label, (-14, 0), LETTERS_SMALL, MUTED, HPos::Right);
        plane.draw_series([EmptyElement::at((from, *place)) + label])?;
    }
    let title = text(&axis.title, (-110, -40), LETTERS_SMALL, MUTED, HPos::Left);
    plane.draw_series([EmptyElement::at((from, axis.to)) + title])?;
    Ok(())
}

fn stroke(colour: RGBColor, width: u32) -> ShapeStyle {
    colour.stroke_width(width)
}

fn text(
    words: &str,
    at: (i32, i32),
    size: f64,
    colour: RGBColor,
    anchor: HPos,
) -> Text<'static, (i32, i32), String> {
    let style = TextStyle {
        font: ("sans-serif", size).into_font(),
        color: colour.to_backend_color(),
        pos: Pos::new(anchor, VPos::Center),
    };
    Text::new(words.to_owned(), at, style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn scales_have_round_numbers() {
        // Goal: three to six of them, from nothing on where there is one. Method: both kinds.
        for most in [0.7, 1.0, 9.0, 23.0, 134_914.0] {
            let axis = Axis::linear("", most, |tick| tick.to_string());
            assert!((3..=6).contains(&axis.ticks.len()), "{most}: {axis:?}");
            assert_eq!(axis.ticks[0].0, 0.0);
            assert!(axis.to >= most);
        }
        let label = |number: f64| format!("{number:.0}");
        let wide = Axis::logarithmic("", [3.0, 40_000.0].into_iter(), label);
        assert_eq!(labels(&wide), ["1", "10", "100", "1000", "10000", "100000"]);
        let narrow = Axis::logarithmic("", [3.0, 7.0].into_iter(), label);
        assert_eq!(labels(&narrow), ["1", "2", "5", "10"]);
        let none = Axis::logarithmic("", [0.0].into_iter(), label);
        assert!(none.from < none.to);
    }

    #[test]
    fn names_do_not_lie_upon_one_another() {
        // Goal: names stay in order, apart, and inside. Method: crowds at the top, in the middle
        // and at the bottom.
        for wanted in [vec![0, 0, 1], vec![50, 51, 52, 52], vec![99, 100, 100]] {
            let places = spread(&wanted, 10, (0, 100));
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 10));
            assert!(places.iter().all(|place| (0..=100).contains(place)));
        }
        assert_eq!(spread(&[10, 90], 10, (0, 100)), [10, 90]);
    }

    #[test]
    fn words_are_escaped() {
        // Goal: a name cannot become markup. Method: draws one that tries.
        let row = Row {
            name: "<b>&\"".to_owned(),
            places: vec![1.0],
            label: "</svg>".to_owned(),
            colour: INK,
            is_pale: false,
        };
        let axis = Axis::linear("", 1.0, |tick| tick.to_string());
        let svg = rows(&[row], &axis, Mark::Bar, WIDE).unwrap();
        assert!(svg.body.contains("&lt;b&gt;&amp;&quot;"), "{}", svg.body);
        assert!(!svg.body.contains("svg>"));
    }
}
