//! Robust least squares for a handful of parameters.
//!
//! Gauss-Newton steps on Huber's loss: quadratic near zero, linear beyond, so that one odd log moves
//! nothing. Derivatives are taken numerically, as the peak of a step is a maximum of several sums.

/// Where errors begin to count linearly, in GiB.
const LINEAR_FROM: f64 = 0.02;

/// A residual (prediction minus truth) and how much it counts.
pub type Residual = (f64, f64);

/// Finds the parameters with the least loss, starting from those given; none becomes negative but for
/// the last `free` ones. `scales` are steps that matter.
pub fn solve(
    start: &[f64],
    scales: &[f64],
    free: usize,
    residuals: impl Fn(&[f64]) -> Vec<Residual>,
) -> Vec<f64> {
    const STEPS: usize = 40;
    let bound = start.len() - free;
    let clamp = |parameters: &mut [f64]| {
        for value in &mut parameters[..bound] {
            *value = value.max(0.0);
        }
    };
    let mut best = start.to_vec();
    clamp(&mut best);
    let mut least = loss(&residuals(&best));
    let mut damping = 1e-3;
    for _ in 0..STEPS {
        let Some(step) = step(&best, scales, &residuals, damping) else { break };
        let mut next: Vec<f64> = best.iter().zip(&step).map(|(value, step)| value + step).collect();
        clamp(&mut next);
        let found = loss(&residuals(&next));
        if found < least {
            let gain = least - found;
            (best, least) = (next, found);
            damping = (damping / 4.0_f64).max(1e-9);
            if gain < least * 1e-6 {
                break;
            }
        } else {
            damping *= 8.0;
            if damping > 1e6 {
                break;
            }
        }
    }
    best
}

fn loss(residuals: &[Residual]) -> f64 {
    let huber = |error: f64| {
        let size = error.abs();
        if size <= LINEAR_FROM {
            size * size / 2.0
        } else {
            LINEAR_FROM * (size - LINEAR_FROM / 2.0)
        }
    };
    residuals.iter().map(|&(error, weight)| weight * huber(error)).sum()
}

/// One step, damped; none where the equations cannot be solved.
fn step(
    at: &[f64],
    scales: &[f64],
    residuals: impl Fn(&[f64]) -> Vec<Residual>,
    damping: f64,
) -> Option<Vec<f64>> {
    const DERIVATIVE: f64 = 1e-2;
    let here = residuals(at);
    let slopes: Vec<Vec<f64>> = (0..at.len())
        .map(|index| {
            let mut moved = at.to_vec();
            moved[index] += scales[index] * DERIVATIVE;
            let there = residuals(&moved);
            here.iter().zip(there).map(|(here, there)| (there.0 - here.0) / DERIVATIVE).collect()
        })
        .collect();
    let size = at.len();
    let mut matrix = vec![vec![0.0; size + 1]; size];
    for (row, &(error, weight)) in here.iter().enumerate() {
        let robust = weight * (LINEAR_FROM / error.abs().max(LINEAR_FROM));
        for i in 0..size {
            for j in 0..size {
                matrix[i][j] += robust * slopes[i][row] * slopes[j][row];
            }
            matrix[i][size] -= robust * slopes[i][row] * error;
        }
    }
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] += damping * (row[i] + 1e-6);
    }
    let solution = gauss(matrix)?;
    Some(solution.iter().zip(scales).map(|(value, scale)| value * scale).collect())
}

/// Solves a square system with its right side in the last column.
fn gauss(mut matrix: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let size = matrix.len();
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        matrix.swap(column, pivot);
        let head = matrix[column].clone();
        if head[column].abs() < 1e-15 {
            return None;
        }
        for (index, row) in matrix.iter_mut().enumerate() {
            if index != column {
                let factor = row[column] / head[column];
                for (value, above) in row.iter_mut().zip(&head) {
                    *value -= factor * above;
                }
            }
        }
    }
    Some((0..size).map(|i| matrix[i][size] / matrix[i][i]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_through_outliers() {
        let points: Vec<(f64, f64)> = (0..20_u32)
            .map(|x| (f64::from(x), 0.5 + 0.1 * f64::from(x)))
            .chain([(3.0, 40.0), (11.0, -7.0)])
            .collect();
        let found = solve(&[0.0, 0.0], &[1.0, 1.0], 0, |p| {
            points.iter().map(|&(x, y)| (p[0] + p[1] * x - y, 1.0)).collect()
        });
        assert!((found[0] - 0.5).abs() < 0.03 && (found[1] - 0.1).abs() < 0.003, "{found:?}");
    }

    #[test]
    fn a_maximum_of_two_sums_is_no_obstacle_and_bounds_hold() {
        let predict = |p: &[f64], x: f64| (p[0] * x).max(p[1] * 3.0) + p[2];
        let truth = [0.7, 1.1, 0.2];
        let found = solve(&[1.0, 1.0, 0.0], &[1.0; 3], 0, |p| {
            (0..12_u32).map(f64::from).map(|x| (predict(p, x) - predict(&truth, x), 1.0)).collect()
        });
        for (found, truth) in found.iter().zip(truth) {
            assert!((found - truth).abs() < 0.02, "{found}");
        }
        let bounded = solve(&[1.0], &[1.0], 0, |p| vec![(p[0] + 5.0, 1.0)]);
        assert!(bounded[0].abs() < 1e-9);
        let free = solve(&[1.0], &[1.0], 1, |p| vec![(p[0] + 5.0, 1.0)]);
        assert!((free[0] + 5.0).abs() < 1e-3, "{free:?}");
    }
}
