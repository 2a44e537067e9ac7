//! The picture: estimate against truth for every complete log, ours and the peers'.

use std::fmt::Write;

use crate::{
    compare::{Part, Row},
    peers::PEERS,
};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 500.0;
const RIGHT: f64 = 616.0;
const TOP: f64 = 40.0;

/// Both axes go from the first to the last of these, in GiB.
const TICKS: [f64; 6] = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

fn along(gib: f64, from: f64, to: f64) -> f64 {
    let (least, most) = (TICKS[0].ln(), TICKS[TICKS.len() - 1].ln());
    let share = (gib.max(TICKS[0]).ln() - least) / (most - least);
    from + share.clamp(0.0, 1.0) * (to - from)
}

/// An SVG of its own, on white so that it can be read on any page.
pub fn svg(rows: &[Row]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" aria-label=\"Estimate against truth\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    axes(&mut svg);
    let logs: Vec<(f64, f64, &Row)> = rows
        .iter()
        .filter_map(|row| match row.full {
            Part::Compared { ours, truth, .. } => Some((ours, truth, row)),
            Part::Skipped { .. } => None,
        })
        .collect();
    for (peer, colour) in PEERS.iter().zip(["#d55e00", "#009e73", "#999999"]) {
        for (_, truth, row) in &logs {
            if let Some((_, error)) = row.peers.iter().find(|(name, _)| *name == peer.name) {
                let (x, y) = (along(*truth, LEFT, RIGHT), along(truth + error, BOTTOM, TOP));
                let _ = writeln!(
                    svg,
                    "<path d=\"M{:.1} {:.1}l6 6m0-6l-6 6\" stroke=\"{colour}\" fill=\"none\"/>",
                    x - 3.0,
                    y - 3.0
                );
            }
        }
    }
    for (ours, truth, row) in &logs {
        let (x, y) = (along(*truth, LEFT, RIGHT), along(*ours, BOTTOM, TOP));
        let margin = row.estimate.map_or(0.0, |estimate| estimate.margin);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {y:.1}V{:.1}\" stroke=\"#0072b2\"/>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"#0072b2\" fill-opacity=\"0.6\"/>",
            along(ours + margin, BOTTOM, TOP)
        );
    }
    legend(&mut svg);
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String) {
    for tick in TICKS {
        let (x, y) = (along(tick, LEFT, RIGHT), along(tick, BOTTOM, TOP));
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {TOP}V{BOTTOM}M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#e0e0e0\"/>\n\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            BOTTOM + 18.0,
            LEFT - 8.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {BOTTOM}L{RIGHT} {TOP}\" stroke=\"#333\"/>\n\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">what vLLM took beside its KV cache, GiB a GPU</text>\n\
         <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">estimate, GiB a GPU</text>",
        f64::midpoint(LEFT, RIGHT),
        HEIGHT - 16.0,
        f64::midpoint(TOP, BOTTOM)
    );
}

fn legend(svg: &mut String) {
    let names = ["Berth, with its margin above", PEERS[0].name, PEERS[1].name, PEERS[2].name];
    let colours = ["#0072b2", "#d55e00", "#009e73", "#999999"];
    for ((name, colour), line) in names.iter().zip(colours).zip(0_u32..) {
        let y = TOP + 18.0 + 18.0 * f64::from(line);
        let _ = writeln!(
            svg,
            "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{name}</text>",
            LEFT + 14.0,
            y - 4.0,
            LEFT + 26.0
        );
    }
}
