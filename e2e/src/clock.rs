//! What took how long, for those who read a test's output. Nothing is asserted about it.

use std::{cell::Cell, time::Instant};

/// Says what took how long since the last time.
#[derive(Debug)]
pub struct Clock(Cell<Instant>);

impl Default for Clock {
    fn default() -> Self {
        Self(Cell::new(Instant::now()))
    }
}

impl Clock {
    /// Says that this took the time until now.
    pub fn lap(&self, what: &str) {
        println!("{:7.1} s  {what}", self.0.replace(Instant::now()).elapsed().as_secs_f64());
    }
}
