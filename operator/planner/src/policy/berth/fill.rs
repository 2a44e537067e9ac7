//! Filling a node at random, and what is left over.

use super::{
    super::mix::Draws,
    cell::{Cell, Need},
};

/// Random fillings that the left-over is the mean of.
const FILLINGS: usize = 16;
/// Demands drawn for each; what does not fit any more is passed over.
const DRAWS: usize = 60;

/// Fillings by the numbers of the demands, drawn in proportion to their weights: the same for the
/// same weights.
pub fn draw(weights: &[f64]) -> Vec<Vec<usize>> {
    let mut sums: Vec<f64> = Vec::with_capacity(weights.len());
    for weight in weights {
        sums.push(sums.last().copied().unwrap_or_default() + weight);
    }
    let all = sums.last().copied().unwrap_or_default();
    if all <= 0.0 {
        return vec![Vec::new()];
    }
    let mut draws = Draws::new(1);
    let mut draw = || {
        let at = draws.unit() * all;
        sums.partition_point(|sum| *sum <= at).min(sums.len() - 1)
    };
    (0..FILLINGS).map(|_| (0..DRAWS).map(|_| draw()).collect()).collect()
}

/// The GPUs that are left over, on average.
pub fn left_over(cell: Cell, fillings: &[Vec<usize>], needs: &[Option<Need>]) -> f64 {
    let each = fillings.iter().map(|filling| {
        let mut cell = cell;
        for &demand in filling {
            if cell.gpus() == 0 {
                break;
            }
            if let Some(need) = &needs[demand] {
                cell.take(need);
            }
        }
        cell.gpus()
    });
    f64::from(each.sum::<u32>()) / (100 * fillings.len().max(1)) as f64
}
