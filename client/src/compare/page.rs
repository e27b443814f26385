//! The report as a page of HTML that needs nothing but itself: no network, no script, no font.
//!
//! Application, above L4. Whatever was measured, typed or said by a server is escaped; what is not
//! escaped was written here.
//!
//! Deliberately not here: the charts (`plots`) and their colours (`palette`).

use std::fmt::{self, Write};

use indicatif::HumanCount;

use crate::compare::palette::{self, Family};
use crate::compare::plots::{Figure, measured, time};
use crate::compare::results::{Comparison, ModelResult, Trial};
use crate::compare::table::{HEADS, bytes, cells, rate, ratio, why_not};

const STYLE: &str = include_str!("page.css");

/// What the style calls its colours on a dark page.
const DARK_PAGE: &str = "--page:#0f1318;--card:#181e25;--ink:#e6eaf0;--muted:#a3adb8;\
                         --rule:#2a3139;--kernel:#ff8a3d;--loop:#5cb8f2;--report:#e79ac4;\
                         --green:#34d3a0;--other:#a3adb8";

/// Text as it may stand in HTML and SVG, in attributes, too.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no way to write the others, and no page needs them.
            letter if letter.is_control() && letter != '\n' && letter != '\t' => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// The whole page.
pub(crate) fn html(comparison: &Comparison, figures: &[Figure]) -> String {
    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(&mut page, comparison, figures);
    page
}

fn write_page(page: &mut String, comparison: &Comparison, figures: &[Figure]) -> fmt::Result {
    let title = title(comparison);
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}\
         @media (prefers-color-scheme: dark) {{\n:root{{{DARK_PAGE}}}\n{}}}\n\
         </style>\n</head>\n<body>\n<main>\n",
        palette::dark_rules()
    )?;
    write_header(page, comparison, &title)?;
    write_findings(page, comparison)?;
    for figure in figures {
        write_figure(page, figure)?;
    }
    write_table(page, comparison)?;
    write_calls(page, comparison)?;
    write_models(page, comparison)?;
    write_method(page, comparison)?;
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn title(comparison: &Comparison) -> String {
    match measured(comparison).len() {
        0 => "Nothing was measured".to_owned(),
        1 => "One echo server, measured".to_owned(),
        count => format!("One echo server, written in {count} ways"),
    }
}

fn write_header(page: &mut String, comparison: &Comparison, title: &str) -> fmt::Result {
    let settings = &comparison.settings;
    writeln!(
        page,
        "<header>\n<h1>{title}</h1>\n<p class=\"lead\">{} connections send messages of {} bytes, \
         each the next as soon as it has its reply. What answers them differs only in how it \
         waits.</p>",
        HumanCount(settings.connections.into()),
        HumanCount(settings.size_bytes.into()),
    )?;
    if comparison.interrupted {
        page.push_str(
            "<p class=\"broken\">The comparison was interrupted: not all was measured.</p>\n",
        );
    }
    for model in &comparison.models {
        if let Some(failure) = &model.failure {
            let (name, failure) = (escape(&model.name), escape(failure));
            writeln!(
                page,
                "<p class=\"broken\"><b>{name}</b> failed: {failure}</p>"
            )?;
        }
    }
    let machine = &comparison.machine;
    let memory = machine.memory_bytes.map_or(String::new(), |memory| {
        format!(", {} GiB of memory", memory.div_ceil(1 << 30))
    });
    page.push_str("<dl>\n");
    for (name, value) in [
        (
            "Machine",
            format!("{} × {}{memory}", machine.processors, machine.processor),
        ),
        ("System", machine.system.clone()),
        ("Date", machine.date.clone()),
        ("Command", settings.command.clone()),
    ] {
        let value = escape(&value);
        let value = match name {
            "Command" => format!("<code>{value}</code>"),
            _ => value,
        };
        writeln!(page, "<dt>{name}</dt><dd>{value}</dd>")?;
    }
    page.push_str("</dl>\n");
    page.push_str("<ul class=\"legend\" aria-label=\"Families of models\">\n");
    for family in Family::ALL {
        let mut models = comparison.models.iter();
        if models.any(|model| Family::of(&model.name) == family) {
            writeln!(
                page,
                "<li class=\"{}\">{}</li>",
                class(family),
                family.title()
            )?;
        }
    }
    page.push_str("</ul>\n</header>\n");
    Ok(())
}

fn class(family: Family) -> &'static str {
    match family {
        Family::Kernel => "kernel",
        Family::Loop => "loop",
        Family::Report => "report",
        Family::Green => "green",
        Family::Other => "other",
    }
}

/// The best of those who answer everybody, in each respect.
fn write_findings(page: &mut String, comparison: &Comparison) -> fmt::Result {
    let mut all = measured(comparison);
    all.retain(|(model, _)| {
        let audience = model.audience.as_ref();
        audience.is_none_or(|audience| audience.served == audience.asked)
    });
    // With two there is nothing to find that the charts do not show.
    if all.len() < 2 {
        return Ok(());
    }
    let least = |number: &dyn Fn(&ModelResult, &Trial) -> Option<f64>| {
        let numbers = all.iter().filter_map(|(model, trial)| {
            let number = number(model, trial)?;
            Some((model, trial, number))
        });
        numbers.min_by(|one, other| one.2.total_cmp(&other.2))
    };
    let memory = |model: &ModelResult| model.audience?.bytes_per_connection;
    page.push_str("<div class=\"cards\">\n");
    let mut card = |what: &str, name: &str, number: String| {
        let name = escape(name);
        writeln!(
            page,
            "<div class=\"card\"><span>{what}</span><strong>{name}</strong>\
             <span>{number}</span></div>"
        )
    };
    if let Some((model, trial, _)) = least(&|_, trial| Some(-trial.requests_per_s)) {
        card("Most requests a second", &model.name, rate(trial))?;
    }
    if let Some((model, _, number)) = least(&|_, trial| Some(trial.p99_ns)) {
        card("Shortest p99", &model.name, time(number))?;
    }
    if let Some((model, _, number)) = least(&|_, trial| Some(trial.cpu_per_request_ns)) {
        card(
            "Least processor time",
            &model.name,
            format!("{} a request", time(number)),
        )?;
    }
    if let Some((model, _, number)) = least(&|model, _| memory(model)) {
        card(
            "Least memory",
            &model.name,
            format!("{} a connection", bytes(number)),
        )?;
    }
    page.push_str("</div>\n");
    Ok(())
}

fn write_figure(page: &mut String, figure: &Figure) -> fmt::Result {
    let Figure {
        id, title, read, ..
    } = figure;
    writeln!(
        page,
        "<section id=\"{id}\">\n<h2>{title}</h2>\n<p class=\"read\">{read}</p>"
    )?;
    let are_many = figure.panels.len() > 1;
    if are_many {
        page.push_str("<div class=\"panels\">\n");
    }
    for (number, panel) in figure.panels.iter().enumerate() {
        page.push_str("<figure>\n");
        if let Some(family) = panel.family {
            let class = class(family);
            writeln!(page, "<h3 class=\"family {class}\">{}</h3>", family.title())?;
        }
        let svg = &panel.svg;
        writeln!(
            page,
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-{number}-title \
             {id}-{number}-description\">\n<title id=\"{id}-{number}-title\">{title}</title>\n\
             <desc id=\"{id}-{number}-description\">{}</desc>\n{}</svg>\n</figure>",
            svg.width,
            svg.height,
            escape(&panel.description),
            svg.body
        )?;
    }
    if are_many {
        page.push_str("</div>\n");
    }
    page.push_str("</section>\n");
    Ok(())
}

fn write_table(page: &mut String, comparison: &Comparison) -> fmt::Result {
    page.push_str(
        "<section id=\"table\">\n<h2>All numbers</h2>\n<div class=\"scroll\">\n<table>\n",
    );
    page.push_str("<thead><tr><th scope=\"col\">model</th>");
    for head in HEADS {
        write!(page, "<th scope=\"col\">{head}</th>")?;
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for model in &comparison.models {
        let class = class(Family::of(&model.name));
        write!(
            page,
            "<tr><td class=\"name {class}\">{}</td>",
            escape(&model.name)
        )?;
        match model.at(comparison.settings.connections) {
            Some(trial) => {
                for cell in cells(model, trial) {
                    // The printed table keeps to letters that every terminal has.
                    let cell = escape(&cell).replace(" us", " µs");
                    write!(page, "<td>{cell}</td>")?;
                }
            }
            None => {
                let reason = model.lacking.as_ref().or(model.failure.as_ref());
                let reason = reason.map_or(String::new(), |reason| format!(": {}", escape(reason)));
                let span = HEADS.len();
                write!(
                    page,
                    "<td class=\"why\" colspan=\"{span}\">{}{reason}</td>",
                    why_not(model)
                )?;
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n</section>\n");
    Ok(())
}

fn write_calls(page: &mut String, comparison: &Comparison) -> fmt::Result {
    let models = comparison.models.iter();
    let mut calls = models
        .filter_map(|model| Some((model, model.system_calls.as_ref()?)))
        .peekable();
    if calls.peek().is_none() {
        return Ok(());
    }
    page.push_str(
        "<section id=\"calls\">\n<h2>What does the server ask the kernel?</h2>\n\
         <p class=\"read\">System calls for each request, by name. An echo needs two: one that \
         receives and one that sends. What comes on top is the price of knowing when. Counted by \
         strace, which slows the server down: more requests are then ready at once than otherwise, \
         so that a call which serves many of them counts for little.</p>\n<div class=\"scroll\">\n\
         <table>\n<thead><tr><th scope=\"col\">model</th><th scope=\"col\">all</th>\
         <th scope=\"col\" style=\"text-align:left\">by name</th></tr></thead>\n<tbody>\n",
    );
    for (model, calls) in calls {
        let names = calls.by_name.iter();
        let names: Vec<String> = names
            .map(|(name, each)| format!("<code>{}</code>&#160;{}", escape(name), ratio(*each)))
            .collect();
        writeln!(
            page,
            "<tr><td class=\"name {}\">{}</td><td>{}</td><td class=\"why\">{}</td></tr>",
            class(Family::of(&model.name)),
            escape(&model.name),
            ratio(calls.per_request),
            names.join(", ")
        )?;
    }
    page.push_str("</tbody>\n</table>\n</div>\n</section>\n");
    Ok(())
}

fn write_models(page: &mut String, comparison: &Comparison) -> fmt::Result {
    page.push_str("<section id=\"models\">\n<h2>The models</h2>\n");
    for family in Family::ALL {
        let models = comparison.models.iter();
        let mut members = models
            .filter(|model| Family::of(&model.name) == family)
            .peekable();
        if members.peek().is_none() {
            continue;
        }
        let (class, title, about) = (class(family), family.title(), family.about());
        writeln!(
            page,
            "<h3 class=\"family {class}\">{title}</h3>\n<p class=\"read\">{about}</p>"
        )?;
        page.push_str("<dl class=\"models\">\n");
        for model in members {
            let (name, about) = (escape(&model.name), escape(&model.about));
            writeln!(page, "<dt>{name}</dt><dd>{about}.</dd>")?;
        }
        page.push_str("</dl>\n<p></p>\n");
    }
    page.push_str("</section>\n");
    Ok(())
}

fn write_method(page: &mut String, comparison: &Comparison) -> fmt::Result {
    let settings = &comparison.settings;
    let places = if settings.server_processors.is_empty() {
        "Server and client share the processors.".to_owned()
    } else {
        format!(
            "The server may run on processor {} only, and the client on processor {}: nothing \
             that a model gains by several processors shows here, and none is disturbed by the \
             client.",
            list(&settings.server_processors),
            list(&settings.client_processors)
        )
    };
    writeln!(
        page,
        "<section id=\"method\">\n<h2>How it was measured</h2>\n\
         <p>Each model was loaded for {} in each round, by the same client over the loopback \
         device; every reply was compared with what was sent, byte by byte. Each time the server \
         was started anew. Rounds go through all models, every second one backwards. Shown here: \
         {}. {}</p>\n\
         <p>Processor time and context switches are what the kernel has counted for the server \
         and all its threads and processes when it has ended. Memory, and how many connections \
         are answered while all are open, come from a server of their own. System calls were \
         counted by strace in runs of their own, as the difference between one with few messages \
         and one with many.</p>",
        time(settings.duration_s * 1e9),
        settings.what_is_shown(),
        escape(&places),
    )?;
    for note in &comparison.notes {
        writeln!(page, "<p>{}</p>", escape(note))?;
    }
    page.push_str("</section>\n");
    Ok(())
}

fn list(numbers: &[usize]) -> String {
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    numbers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plots;
    use crate::compare::table::tests::comparison;

    #[test]
    fn nothing_escapes_the_escape() {
        // Goal: markup and control characters become harmless. Method: all of them at once.
        let text = "<script>&\"'\u{1b}[0m\n</script>";
        let expected = "&lt;script&gt;&amp;&quot;&#39;[0m\n&lt;/script&gt;";
        assert_eq!(escape(text), expected);
    }

    #[test]
    fn a_page_has_every_model_and_no_reference() {
        // Goal: names, reasons and charts are there, what could be markup is not, and nothing leads
        // away. Method: a comparison with names that try.
        let comparison = comparison();
        let page = html(&comparison, &plots::figures(&comparison).unwrap());
        for text in [
            "blocking",
            "98,765",
            "the kernel has no kqueue",
            "a&lt;b&gt;&amp;&quot;c&#39;",
            "it died &amp; &lt;was&gt;",
            "What &lt;green&gt; is",
            "a note",
            "<code>client compare</code>",
        ] {
            assert!(page.contains(text), "{text}");
        }
        for text in [
            "http:", "https:", "src=", "href=", "url(", "<script", "@import", "a<b>",
        ] {
            assert!(!page.contains(text), "{text}");
        }
        let figures = page.matches("<svg ").count();
        assert_eq!(figures, page.matches("role=\"img\"").count());
        assert_eq!(figures, page.matches("<desc ").count());
    }
}
