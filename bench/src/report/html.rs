//! The report as one page: the latency curve as inline SVG, and the table. It refers to nothing outside itself.

use plotters::prelude::*;

use super::{Report, table};
use crate::Failure;
use crate::histogram::Latencies;

/// Width and height of the curve.
const CURVE_PIXELS: (u32, u32) = (880, 460);
/// Ours, and the limit.
const COLOURS: [RGBColor; 2] = [RGBColor(0x00, 0x5f, 0xb8), RGBColor(0xd9, 0x5f, 0x02)];
/// The curve ends at this many nines: p99.99.
const NINES: f64 = 4.0;
/// Points of a curve.
const POINTS: u32 = 200;

/// `report` as HTML.
///
/// # Errors
/// The curve could not be drawn.
pub(crate) fn render(report: &Report) -> Result<String, Failure> {
    let title = escape(&table::headline(report));
    let curve = curve(report)?;
    let figures = escape(&table::render(report));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>mirrorbus-bench: {title}</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em}}\
         pre{{font:14px/1.4 ui-monospace,monospace;overflow-x:auto;background:#f4f4f4;padding:1em}}\
         svg{{width:100%;height:auto}}h1{{font-size:1.2em}}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p>Time from store to acknowledgment: the share of stores on the horizontal axis took at most the time on \
         the vertical one.</p>\n{curve}\n<pre>{figures}</pre>\n</body>\n</html>\n"
    ))
}

fn curve(report: &Report) -> Result<String, Failure> {
    let series = [("ours", &report.outcome.ours.latencies), ("limit", &report.outcome.limit.latencies)]
        .map(|(name, latencies)| (name, points(latencies)));
    let heights = || series.iter().flat_map(|(_, points)| points.iter().map(|(_, height)| *height));
    let low = heights().fold(f64::INFINITY, f64::min) * 0.8;
    let high = heights().fold(1.0, f64::max) * 1.25;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, CURVE_PIXELS).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..NINES, (low..high).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_labels(5)
            .x_desc("share of stores")
            .y_desc("time to acknowledgment")
            .x_label_formatter(&|nines| share(*nines))
            .y_label_formatter(&|height| label(*height))
            .label_style(("sans-serif", 14))
            .draw()?;
        for ((name, points), colour) in series.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 15))
            .draw()?;
        area.present()?;
    }
    // Inline SVG needs no namespace, and so the page names no address at all.
    Ok(svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", ""))
}

/// Latencies over the number of nines: 1 is p90, 2 is p99.
fn points(latencies: &Latencies) -> Vec<(f64, f64)> {
    (0..=POINTS)
        .map(|index| {
            let nines = NINES * f64::from(index) / f64::from(POINTS);
            #[allow(clippy::cast_precision_loss, reason = "a curve needs no 53 bits")]
            let height = latencies.at(1.0 - 10f64.powf(-nines)).max(1) as f64;
            (nines, height)
        })
        .collect()
}

fn share(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10f64.powf(-nines));
    let text = format!("{percent:.2}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a latency is positive and below a minute"
)]
fn label(height: f64) -> String {
    table::duration(height.round() as u64)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_refers_to_nothing() {
        let page = render(&super::super::sample::report()).unwrap();
        for expected in ["<svg", "</svg>", "99.99 %", "99.9 %", "p99.99", "ours", "limit", "</html>"] {
            assert!(page.contains(expected), "{expected:?} is missing");
        }
        let mut report = super::super::sample::report();
        report.outcome.control_p50.median = 0.9;
        assert!(render(&report).unwrap().contains("VOID: the p50"));
        for forbidden in ["http", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(forbidden), "{forbidden:?} is there");
        }
        assert!(page.matches("<polyline").count() >= 2, "a curve each");
    }

    #[test]
    fn the_axis_names_shares() {
        assert_eq!(
            [share(0.0), share(1.0), share(2.0), share(3.0), share(4.0)],
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }
}
