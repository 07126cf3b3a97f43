//! The report: a table for people, one JSON object per row for programs.

/// One comparison: what was done, each contender's nanoseconds per operation, and the targets.
#[derive(Debug)]
pub struct Row {
    /// What one operation is.
    pub what: String,
    /// Name and median nanoseconds per operation; ours comes first.
    pub times: Vec<(String, f64)>,
    /// Targets: text, and whether they are met.
    pub targets: Vec<(String, bool)>,
    /// Name, shortest and longest time, where they are told.
    pub spread: Vec<(String, f64, f64)>,
}

impl Row {
    /// A row without targets yet.
    pub fn new(what: &str, times: Vec<(String, f64)>) -> Self {
        Row {
            what: what.to_owned(),
            times,
            targets: Vec::new(),
            spread: Vec::new(),
        }
    }

    fn ours(&self) -> f64 {
        self.times.first().map_or(f64::NAN, |(_, ns)| *ns)
    }

    fn of(&self, peer: &str) -> Option<f64> {
        self.times
            .iter()
            .find(|(name, _)| name == peer)
            .map(|(_, ns)| *ns)
    }

    /// Asks for at most `factor` times what `peer` takes. A peer that did not run asks for nothing.
    #[must_use]
    pub fn at_most(mut self, factor: f64, peer: &str) -> Self {
        if let Some(ns) = self.of(peer) {
            let ratio = self.ours() / ns;
            self.targets.push((
                format!("{ratio:.2}x {peer}, wanted at most {factor}x"),
                ratio <= factor,
            ));
        }
        self
    }

    /// Asks to be at least `factor` times as fast as `peer`.
    #[must_use]
    pub fn faster_than(self, factor: f64, peer: &str) -> Self {
        let ours = self.times.first().map(|(name, _)| name.clone());
        self.is_faster_than(&ours.unwrap_or_default(), factor, peer)
    }

    /// Asks one of ours to be at least `factor` times as fast as `peer`.
    #[must_use]
    pub fn is_faster_than(mut self, ours: &str, factor: f64, peer: &str) -> Self {
        if let (Some(ns), Some(own)) = (self.of(peer), self.of(ours)) {
            let ratio = ns / own;
            self.targets.push((
                format!("{ours}: {ratio:.1}x as fast as {peer}, wanted {factor}x"),
                ratio >= factor,
            ));
        }
        self
    }

    /// Asks for at most `ns` nanoseconds.
    #[must_use]
    pub fn within(mut self, ns: f64) -> Self {
        let ours = self.ours();
        self.targets.push((
            format!("{ours:.0} ns, wanted at most {ns:.0} ns"),
            ours <= ns,
        ));
        self
    }

    /// One line of text, and one more for each target.
    pub fn text(&self) -> String {
        let mut line = format!("{:<38}", self.what);
        let ours = self.ours();
        for (name, ns) in &self.times {
            line += &format!(" {name} {} ({:.2}x)", duration(*ns), ns / ours);
        }
        for (name, shortest, longest) in &self.spread {
            let (from, to) = (duration(*shortest), duration(*longest));
            line += &format!("\n    {name} {from} to {to}");
        }
        for (text, met) in &self.targets {
            line += &format!("\n    {} {text}", if *met { "met   " } else { "MISSED" });
        }
        line
    }

    /// One JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "schema": 1,
            "what": self.what,
            "ns_per_op": self.times.iter().map(|(n, t)| (n.clone(), (*t).into())).collect::<serde_json::Map<_, _>>(),
            "spread": self.spread.iter().map(|(n, from, to)| (n.clone(), serde_json::json!([from, to]))).collect::<serde_json::Map<_, _>>(),
            "targets": self.targets.iter().map(|(t, met)| serde_json::json!({"text": t, "met": met})).collect::<Vec<_>>(),
        })
    }
}

pub(crate) fn duration(ns: f64) -> String {
    if ns < 10_000.0 {
        format!("{ns:.0} ns")
    } else if ns < 10_000_000.0 {
        format!("{:.1} us", ns / 1e3)
    } else {
        format!("{:.1} ms", ns / 1e6)
    }
}
