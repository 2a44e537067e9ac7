//! The files of the experiment: nodes, and pods with their requests.

use anyhow::{Context, Result, bail};
use berth_planner::room::{Ask, Demand, Kind};
use berth_units::{Bytes, MilliCpu};

/// A thousandth of a GPU. The trace counts parts of GPUs in thousandths of whichever GPU it is, so
/// every GPU is taken to have a thousand of these.
const MILLI_GPU: Bytes = Bytes::mib(16);
/// A whole GPU in thousandths.
const WHOLE: u64 = 1000;

/// Nodes and pods.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The nodes by name, in the order of the names.
    pub nodes: Vec<(String, Kind)>,
    /// The pods.
    pub pods: Vec<Demand>,
}

impl Trace {
    /// Reads both files.
    pub fn read(nodes: &str, pods: &str) -> Result<Self> {
        let nodes = Rows::of(nodes, &["sn", "cpu_milli", "memory_mib", "gpu", "model"])?;
        let nodes = nodes.map(|row| {
            let gpus = u32::try_from(row.number("gpu")?)?;
            let kind = Kind {
                product: row.text("model").to_owned(),
                gpus,
                vram: if gpus > 0 { MILLI_GPU * WHOLE } else { Bytes::ZERO },
                cpu: MilliCpu(row.number("cpu_milli")?),
                memory: Bytes::mib(row.number("memory_mib")?),
            };
            Ok((row.text("sn").to_owned(), kind))
        });
        let mut nodes = nodes.context("the list of nodes")?;
        nodes.sort();
        let pods = Rows::of(pods, &["cpu_milli", "memory_mib", "num_gpu", "gpu_milli"])?;
        let pods = pods.map(|row| {
            let (count, milli) = (row.number("num_gpu")?, row.number("gpu_milli")?);
            let ask = match (count, milli) {
                (0, _) | (_, 0) => Ask::Nothing,
                (1, part) if part < WHOLE => Ask::Part(MILLI_GPU * part),
                (count, _) => {
                    let count = u32::try_from(count)?;
                    Ask::Whole { count, vram: MILLI_GPU * WHOLE }
                }
            };
            let products = row.text("gpu_spec").split('|').filter(|name| !name.is_empty());
            Ok(Demand {
                cpu: MilliCpu(row.number("cpu_milli")?),
                memory: Bytes::mib(row.number("memory_mib")?),
                ask,
                products: products.map(str::to_owned).collect(),
            })
        });
        let pods = pods.context("the list of pods")?;
        if nodes.is_empty() || pods.is_empty() {
            bail!("the trace has {} nodes and {} pods", nodes.len(), pods.len());
        }
        Ok(Self { nodes, pods })
    }
}

/// What a demand asks of GPUs, in thousandths.
pub fn milli(demand: &Demand) -> u64 {
    match demand.ask {
        Ask::Nothing => 0,
        Ask::Part(bytes) => bytes.get() / MILLI_GPU.get(),
        Ask::Whole { count, .. } => u64::from(count) * WHOLE,
    }
}

/// A CSV file with a header and without quotes.
struct Rows<'a> {
    header: Vec<&'a str>,
    lines: Vec<&'a str>,
}

struct Row<'a> {
    header: &'a [&'a str],
    cells: Vec<&'a str>,
}

impl<'a> Rows<'a> {
    fn of(text: &'a str, needed: &[&str]) -> Result<Self> {
        let mut lines = text.lines().map(str::trim_end);
        let header: Vec<&str> = lines.next().context("the file is empty")?.split(',').collect();
        for column in needed {
            if !header.contains(column) {
                bail!("there is no column {column} (there are {})", header.join(", "));
            }
        }
        Ok(Self { header, lines: lines.filter(|line| !line.is_empty()).collect() })
    }

    fn map<T>(&self, read: impl Fn(Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        let rows = (2..).zip(&self.lines);
        rows.map(|(number, line)| {
            let row = Row { header: &self.header, cells: line.split(',').collect() };
            read(row).with_context(|| format!("line {number}"))
        })
        .collect()
    }
}

impl Row<'_> {
    fn text(&self, column: &str) -> &str {
        let at = self.header.iter().position(|name| *name == column);
        at.and_then(|at| self.cells.get(at)).map_or("", |cell| cell.trim())
    }

    fn number(&self, column: &str) -> Result<u64> {
        let text = self.text(column);
        text.parse().with_context(|| format!("column {column}: {text:?} is no whole number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_whole_gpus_and_allowed_products_are_read() {
        let nodes = "sn,cpu_milli,memory_mib,gpu,model\nn2,8000,100,2,T4\nn1,4000,50,0,\n";
        let pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n\
                    a,1000,10,1,460,T4|P100\nb,1000,10,2,1000,\nc,1000,10,0,0,\n";
        let trace = Trace::read(nodes, pods).unwrap();
        assert_eq!(trace.nodes[0].0, "n1");
        assert_eq!(trace.nodes[1].1.gpus, 2);
        assert_eq!(trace.pods[0].products, ["T4", "P100"]);
        assert_eq!(trace.pods.iter().map(milli).collect::<Vec<_>>(), [460, 2000, 0]);
        let error = Trace::read(nodes, "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,x,0");
        let text = format!("{:#}", error.unwrap_err());
        assert_eq!(
            text,
            "the list of pods: line 2: column num_gpu: \"x\" is no whole number: \
             invalid digit found in string"
        );
        assert!(Trace::read("sn,cpu_milli\n", pods).is_err());
    }
}
