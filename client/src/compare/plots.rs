//! Which charts a comparison has, and how each is read.
//!
//! Application, above L4. A model that cannot answer all connections at once is drawn pale: fewer
//! of them take part, so that its numbers are not those of the others. Curves come in a panel for
//! each family of models, with all others in the background, because nobody can tell sixteen
//! colours in one panel apart.
//!
//! Deliberately not here: how a chart is drawn (`charts`).

use crate::compare::charts::{self, Axis, Error, Line, Mark, Row, Svg, WIDE};
use crate::compare::palette::{self, Family};
use crate::compare::results::{Comparison, ModelResult, Trial};
use crate::compare::table::{bytes, rate};

/// A chart with its words, or several that are read alike.
pub(crate) struct Figure {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// How it is read.
    pub(crate) read: &'static str,
    pub(crate) panels: Vec<Panel>,
}

pub(crate) struct Panel {
    pub(crate) family: Option<Family>,
    /// What the chart shows, in words, for readers who cannot see it.
    pub(crate) description: String,
    pub(crate) svg: Svg,
}

/// A model with its medians at the number of connections that the comparison is about.
type Measured<'a> = (&'a ModelResult, &'a Trial);

pub(crate) fn measured(comparison: &Comparison) -> Vec<Measured<'_>> {
    let connections = comparison.settings.connections;
    let models = comparison.models.iter();
    models
        .filter_map(|model| Some((model, model.at(connections)?)))
        .collect()
}

/// All figures for which there are numbers.
pub(crate) fn figures(comparison: &Comparison) -> Result<Vec<Figure>, Error> {
    if measured(comparison).is_empty() {
        return Ok(Vec::new());
    }
    let mut figures = vec![
        throughput(comparison, WIDE)?,
        latency(comparison, WIDE)?,
        distribution(comparison)?,
        effort(comparison, WIDE)?,
    ];
    figures.extend(memory(comparison, WIDE)?);
    if comparison.settings.steps.len() > 1 {
        figures.push(sweep_of_rates(comparison)?);
        figures.push(sweep_of_times(comparison)?);
    }
    Ok(figures)
}

pub(crate) fn throughput(comparison: &Comparison, width: u32) -> Result<Figure, Error> {
    let mut models = measured(comparison);
    models.sort_by(|one, other| other.1.requests_per_s.total_cmp(&one.1.requests_per_s));
    let most = models
        .first()
        .map_or(1.0, |(_, trial)| trial.requests_per_s);
    let axis = Axis::linear("requests per second", most, rounded);
    let rows = rows(&models, |_, trial| {
        (vec![trial.requests_per_s], rate(trial))
    });
    bars(
        Mark::Bar,
        width,
        &rows,
        &axis,
        Figure {
            id: "throughput",
            title: "How many requests a second?",
            read: "<b>Longer is better.</b> Pale bars belong to models that do not answer all \
               connections at once: the others wait, so that few take part in what is counted. A \
               ≥ stands where the client had no processor time left while the server had some.",
            panels: Vec::new(),
        },
    )
}

pub(crate) fn effort(comparison: &Comparison, width: u32) -> Result<Figure, Error> {
    let mut models = measured(comparison);
    models.sort_by(|one, other| {
        one.1
            .cpu_per_request_ns
            .total_cmp(&other.1.cpu_per_request_ns)
    });
    let most = models
        .last()
        .map_or(1.0, |(_, trial)| trial.cpu_per_request_ns);
    let axis = Axis::linear("processor time for each request", most, time);
    let rows = rows(&models, |_, trial| {
        let each = trial.cpu_per_request_ns;
        (vec![each], time(each))
    });
    bars(
        Mark::Bar,
        width,
        &rows,
        &axis,
        Figure {
            id: "cpu",
            title: "What does a request cost the server?",
            read: "<b>Shorter is better.</b> All processor time that the server used from its \
               start to its end, in the kernel, too, with all its threads and processes, divided \
               by the requests that it answered. Unlike the rate, it does not depend on how fast \
               the client is.",
            panels: Vec::new(),
        },
    )
}

/// Nothing if the memory is known of nobody.
pub(crate) fn memory(comparison: &Comparison, width: u32) -> Result<Option<Figure>, Error> {
    let each = |model: &ModelResult| model.audience?.bytes_per_connection;
    let mut models = measured(comparison);
    models.retain(|(model, _)| each(model).is_some());
    models.sort_by(|one, other| {
        each(one.0)
            .partial_cmp(&each(other.0))
            .expect("no NaN is made")
    });
    if models.is_empty() {
        return Ok(None);
    }
    let all = models.iter().filter_map(|(model, _)| each(model));
    let label = |number| bytes(number).replace(".0 ", " ");
    let axis = Axis::logarithmic("memory for each connection", all, label);
    let rows = rows(&models, |model, _| {
        let each = each(model).unwrap_or(0.0);
        (vec![each.log10().max(axis.from)], bytes(each))
    });
    let figure = bars(
        Mark::Dots,
        width,
        &rows,
        &axis,
        Figure {
            id: "memory",
            title: "How much memory does a connection take?",
            read: "<b>Further left is better.</b> The scale is logarithmic: each line is ten \
               times the one before. It is what the server's memory grew by with all connections \
               open and one message answered on each, divided by those answered. Memory that \
               processes share counts once. What the kernel keeps besides (buffers of sockets, \
               its own stacks, page tables) is not in it. Rings belong to models that do not \
               answer all at once; a pool has its threads or processes before anybody comes.",
            panels: Vec::new(),
        },
    )?;
    Ok(Some(figure))
}

/// The distribution in three numbers each.
pub(crate) fn latency(comparison: &Comparison, width: u32) -> Result<Figure, Error> {
    let mut models = measured(comparison);
    models.sort_by(|one, other| one.1.p99_ns.total_cmp(&other.1.p99_ns));
    let numbers = |trial: &Trial| [trial.p50_ns, trial.p99_ns, trial.p99_9_ns];
    let all = models.iter().flat_map(|(_, trial)| numbers(trial));
    let axis = Axis::logarithmic("time until the reply is complete", all, time);
    let mut rows = rows(&models, |_, trial| {
        let places = numbers(trial).map(|time| time.max(1.0).log10().max(axis.from));
        let label = numbers(trial).map(time).join(" · ");
        (places.to_vec(), label)
    });
    for row in &mut rows {
        // Three numbers are all there is room for; the rings tell the rest.
        row.label
            .truncate(row.label.find("  (").unwrap_or(row.label.len()));
    }
    bars(
        Mark::Dots,
        width,
        &rows,
        &axis,
        Figure {
            id: "latency",
            title: "How long does a reply take?",
            read: "<b>Further left and closer together is better.</b> The large dot is the median \
               (half of all replies came sooner), then come p99 (all but one in a hundred) and \
               p99.9 (all but one in a thousand). The scale is logarithmic. Rings belong to \
               models that do not answer all at once: a few are answered very soon, and the \
               others when those have left.",
            panels: Vec::new(),
        },
    )
}

fn distribution(comparison: &Comparison) -> Result<Figure, Error> {
    let models = measured(comparison);
    let all = || models.iter().flat_map(|(_, trial)| trial.curve.iter());
    let place = |quantile: f64| -(1.0 - quantile).log10();
    let most = all()
        .map(|(quantile, _)| place(*quantile))
        .fold(1.0, f64::max);
    let ticks = [
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
    ];
    let more = [(0.9999, "99.99 %"), (0.99999, "99.999 %")];
    let ticks = ticks.into_iter().chain(more);
    let ticks = ticks.map(|(quantile, label)| (place(quantile), label.to_owned()));
    let x = Axis {
        title: "share of the replies".to_owned(),
        from: 0.0,
        to: most,
        ticks: ticks.filter(|(tick, _)| *tick <= most + 1e-9).collect(),
    };
    let y = Axis::logarithmic("came within", all().map(|(_, time)| *time), time);
    let points = |trial: &Trial| {
        let points = trial.curve.iter().filter(|(_, time)| *time > 0.0);
        points
            .map(|(quantile, time)| (place(*quantile), time.log10()))
            .collect()
    };
    let lines = models
        .iter()
        .map(|(model, trial)| (model.name.as_str(), points(trial)));
    Ok(Figure {
        id: "distribution",
        title: "And the slowest replies?",
        read: "<b>Lower and flatter is better.</b> A curve tells within which time what share of \
               the replies came. Both scales are stretched, so that the few slowest can be seen: \
               each step to the right leaves a tenth of the replies before. A curve that climbs \
               at its end makes a few wait long while most do not notice. Each panel shows one \
               family, with all others in grey.",
        panels: panels(&lines.collect::<Vec<_>>(), &x, &y, false, |name, points| {
            let end = points.last().map_or(0.0, |(_, time)| 10_f64.powf(*time));
            format!("{name} up to {}", time(end))
        })?,
    })
}

fn sweep_of_rates(comparison: &Comparison) -> Result<Figure, Error> {
    let lines = sweep(comparison, |trial| trial.requests_per_s);
    let most = lines
        .iter()
        .flat_map(|(_, points)| points.iter().map(|(_, rate)| *rate));
    let y = Axis::linear("requests per second", most.fold(0.0, f64::max), rounded);
    let x = axis_of_steps(comparison);
    Ok(Figure {
        id: "sweep-throughput",
        title: "What do more connections do to the rate?",
        read: "<b>Higher is better, and so is not to fall.</b> With one connection the server \
               waits for each message; with more it can handle those together that have come \
               meanwhile. A curve that falls on the right pays for each connection, whether it \
               says something or not.",
        panels: panels(&lines, &x, &y, true, |name, points| {
            let end = points.last().map_or(0.0, |(_, rate)| *rate);
            format!("{name} {} at last", rounded(end))
        })?,
    })
}

fn sweep_of_times(comparison: &Comparison) -> Result<Figure, Error> {
    let lines = sweep(comparison, |trial| trial.p99_ns.max(1.0).log10());
    let all = lines
        .iter()
        .flat_map(|(_, points)| points.iter().map(|(_, time)| 10_f64.powf(*time)));
    let y = Axis::logarithmic("p99 of the replies", all, time);
    let x = axis_of_steps(comparison);
    Ok(Figure {
        id: "sweep-latency",
        title: "And to the time of a reply?",
        read: "<b>Lower is better.</b> p99: all but one in a hundred replies came within this \
               time. Every connection sends its next message as soon as it has the reply to the \
               last one, so twice the connections wait twice as long where the rate stays the \
               same.",
        panels: panels(&lines, &x, &y, true, |name, points| {
            let end = points.last().map_or(0.0, |(_, time)| 10_f64.powf(*time));
            format!("{name} {} at last", time(end))
        })?,
    })
}

/// For each model a number over the number of connections, whose places are logarithms.
fn sweep(comparison: &Comparison, number: fn(&Trial) -> f64) -> Vec<(&str, Vec<(f64, f64)>)> {
    let curve = |model: &ModelResult| {
        let steps = comparison.settings.steps.iter();
        let points = steps.filter_map(|connections| {
            let trial = model.at(*connections)?;
            Some((f64::from(*connections).log10(), number(trial)))
        });
        points.collect()
    };
    let models = comparison
        .models
        .iter()
        .filter(|model| !model.steps.is_empty());
    models
        .map(|model| (model.name.as_str(), curve(model)))
        .collect()
}

fn axis_of_steps(comparison: &Comparison) -> Axis {
    let steps = &comparison.settings.steps;
    let place = |connections: &u32| f64::from(*connections).log10();
    let ticks = steps
        .iter()
        .map(|step| (place(step), rounded(f64::from(*step))));
    Axis {
        title: "connections".to_owned(),
        from: steps.first().map_or(0.0, place),
        to: steps.last().map_or(1.0, place),
        ticks: ticks.collect(),
    }
}

fn rows(
    models: &[Measured<'_>],
    of: impl Fn(&ModelResult, &Trial) -> (Vec<f64>, String),
) -> Vec<Row> {
    let rows = models.iter().map(|(model, trial)| {
        let (places, mut label) = of(model, trial);
        let audience = model
            .audience
            .filter(|audience| audience.served < audience.asked);
        if let Some(audience) = audience {
            label += &format!("  (answers {} at once)", audience.served);
        }
        Row {
            name: model.name.clone(),
            places,
            label,
            colour: Family::of(&model.name).colour(),
            is_pale: audience.is_some(),
        }
    });
    rows.collect()
}

fn bars(
    mark: Mark,
    width: u32,
    rows: &[Row],
    axis: &Axis,
    mut figure: Figure,
) -> Result<Figure, Error> {
    let told = rows.iter().map(|row| format!("{} {}", row.name, row.label));
    figure.panels.push(Panel {
        family: None,
        description: format!(
            "From the best down: {}.",
            told.collect::<Vec<_>>().join("; ")
        ),
        svg: charts::rows(rows, axis, mark, width)?,
    });
    Ok(figure)
}

/// A panel for each family that has a curve.
fn panels(
    curves: &[(&str, Vec<(f64, f64)>)],
    x: &Axis,
    y: &Axis,
    has_dots: bool,
    tell: impl Fn(&str, &[(f64, f64)]) -> String,
) -> Result<Vec<Panel>, Error> {
    let mut panels = Vec::new();
    for family in Family::ALL {
        let mut members = 0;
        let mut told = Vec::new();
        let lines = curves.iter().map(|(name, points)| {
            let colour = (Family::of(name) == family).then(|| {
                members += 1;
                told.push(tell(name, points));
                palette::curve(members - 1)
            });
            Line {
                name: (*name).to_owned(),
                points: points.clone(),
                colour,
                has_dots,
            }
        });
        let lines: Vec<Line> = lines.collect();
        if !told.is_empty() {
            panels.push(Panel {
                family: Some(family),
                description: format!("{}: {}.", family.title(), told.join("; ")),
                svg: charts::curves(&lines, x, y)?,
            });
        }
    }
    Ok(panels)
}

/// A time as people write it where there are all letters.
pub(crate) fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        value if value < 1e3 => (value, "ns"),
        value if value < 1e6 => (value / 1e3, "µs"),
        value if value < 1e9 => (value / 1e6, "ms"),
        value => (value / 1e9, "s"),
    };
    // Three digits, or none behind the point where there would be only zeros.
    let decimals = match value {
        value if (value - value.round()).abs() < 1e-9 => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

fn rounded(number: f64) -> String {
    indicatif::HumanCount(number.round() as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::table::tests::comparison;

    #[test]
    fn every_model_is_in_every_chart() {
        // Goal: bars for all who were measured, pale for who cannot serve all; a panel for each
        // family with them; nothing of those without numbers. Method: a comparison of all sorts.
        let figures = figures(&comparison()).unwrap();
        let ids: Vec<&str> = figures.iter().map(|figure| figure.id).collect();
        let expected = ["throughput", "latency", "distribution", "cpu", "memory"];
        assert_eq!(ids[..5], expected);
        assert_eq!(ids[5..], ["sweep-throughput", "sweep-latency"]);
        for figure in &figures {
            let told: Vec<&str> = figure
                .panels
                .iter()
                .map(|panel| panel.description.as_str())
                .collect();
            let told = told.join(" ");
            assert!(
                told.contains("blocking") && told.contains("green"),
                "{told}"
            );
            assert!(!told.contains("kqueue"), "{told}");
        }
        assert!(
            figures[0].panels[0]
                .description
                .contains("answers 1 at once")
        );
        let families: Vec<_> = figures[2].panels.iter().map(|panel| panel.family).collect();
        assert_eq!(families, [Some(Family::Kernel), Some(Family::Green)]);
    }

    #[test]
    fn nothing_measured_means_no_charts() {
        // Goal: a comparison in which all failed has a report, too. Method: one without numbers.
        let mut comparison = comparison();
        comparison.models.retain(|model| model.steps.is_empty());
        assert!(figures(&comparison).unwrap().is_empty());
    }

    #[test]
    fn times_on_scales_are_short() {
        // Goal: round numbers have no decimals, others three digits. Method: one of each.
        for (nanoseconds, expected) in [
            (1e3, "1 µs"),
            (1e8, "100 ms"),
            (2.5e6, "2.50 ms"),
            (45_600.0, "45.6 µs"),
        ] {
            assert_eq!(time(nanoseconds), expected);
        }
    }
}
