//! The switches of `--feature-gates`: what there is, and how a list of them is read.

use std::fmt;

use crate::flags::Scope;
use crate::go_values::{NumberError, ValueError, parse_bool};

/// One feature that can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Name as written in the flag.
    pub name: &'static str,
    /// Alpha gates are off by default, beta gates on.
    pub beta: bool,
    /// What it switches.
    pub help: &'static str,
    /// What becomes of a switch away from its default.
    pub scope: Scope,
}

/// All gates of etcd 3.7, by name.
pub const GATES: [Gate; 9] = [
    Gate {
        name: "CompactHashCheck",
        beta: false,
        help: "compare hashes with the other members at every compaction",
        scope: Scope::Effective,
    },
    Gate {
        name: "FastLeaseKeepAlive",
        beta: true,
        help: "answer a keepalive of a known lease without waiting for apply",
        scope: Scope::NoEffect("what is committed is applied already when a keepalive comes"),
    },
    Gate {
        name: "InitialCorruptCheck",
        beta: false,
        help: "compare hashes with the other members before serving",
        scope: Scope::Effective,
    },
    Gate {
        name: "LeaseCheckpoint",
        beta: false,
        help: "keep the remaining time of leases over a change of leader",
        scope: Scope::Later("checkpoints of leases"),
    },
    Gate {
        name: "LeaseCheckpointPersist",
        beta: false,
        help: "keep it over a restart too; needs LeaseCheckpoint",
        scope: Scope::Later("checkpoints of leases"),
    },
    Gate {
        name: "PriorityRequest",
        beta: false,
        help: "let lease revokes pass when requests pile up; changes nothing here",
        scope: Scope::NoEffect(
            "requests do not pile up between commit and apply here, and ended leases are revoked ahead of all",
        ),
    },
    Gate {
        name: "SetMemberLocalAddr",
        beta: false,
        help: "dial peers from the address in initial-advertise-peer-urls",
        scope: Scope::Later("peer traffic"),
    },
    Gate {
        name: "StopGRPCServiceOnDefrag",
        beta: false,
        help: "report NOT_SERVING while a defragmentation runs",
        scope: Scope::Effective,
    },
    Gate {
        name: "TxnModeWriteWithSharedBuffer",
        beta: true,
        help: "share one read buffer inside a transaction; changes nothing here",
        scope: Scope::NoEffect("it concerns buffers of bbolt"),
    },
];

/// Which gates are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureGates {
    on: [bool; GATES.len()],
    /// Whether `AllAlpha` and `AllBeta` are set.
    stages: [bool; 2],
}

impl Default for FeatureGates {
    fn default() -> Self {
        Self { on: GATES.map(|gate| gate.beta), stages: [false; 2] }
    }
}

impl FeatureGates {
    /// Whether the gate `name` is on.
    ///
    /// # Panics
    /// When there is no gate of that name.
    pub fn is_on(&self, name: &str) -> bool {
        let at = GATES.iter().position(|gate| gate.name == name);
        self.on[at.expect("a gate of the table")]
    }

    /// Switches what a list such as `LeaseCheckpoint=true,AllBeta=false` says.
    ///
    /// `AllAlpha` and `AllBeta` come first, wherever they stand: a gate named by itself wins.
    ///
    /// # Errors
    /// [`ValueError`] in etcd's words: unknown gate, no value, no boolean.
    pub fn with(mut self, list: &str) -> Result<Self, ValueError> {
        let mut single = Vec::new();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) = item
                .split_once('=')
                .ok_or_else(|| ValueError(format!("missing bool value for {item}")))?;
            let (name, value) = (name.trim(), value.trim());
            let on = parse_bool(value).map_err(|error| invalid_switch(name, value, error))?;
            match name {
                "AllAlpha" => self.switch_all(false, on),
                "AllBeta" => self.switch_all(true, on),
                _ => {
                    let at = GATES.iter().position(|gate| gate.name == name);
                    let unknown = || ValueError(format!("unrecognized feature gate: {name}"));
                    single.push((at.ok_or_else(unknown)?, on));
                }
            }
        }
        for (at, on) in single {
            self.on[at] = on;
        }
        Ok(self)
    }

    /// Gates away from their default.
    pub fn changed(&self) -> impl Iterator<Item = (&'static Gate, bool)> {
        let on = self.on;
        GATES.iter().zip(on).filter(|(gate, on)| gate.beta != *on)
    }

    /// Every gate and the two that stand for a stage, by name: name, whether it is a beta gate, whether it is on.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, bool, bool)> {
        let stages = [("AllAlpha", false, self.stages[0]), ("AllBeta", true, self.stages[1])];
        let gates = GATES.iter().zip(self.on).map(|(gate, on)| (gate.name, gate.beta, on));
        stages.into_iter().chain(gates)
    }

    fn switch_all(&mut self, beta: bool, on: bool) {
        self.stages[usize::from(beta)] = on;
        for (gate, state) in GATES.iter().zip(&mut self.on) {
            if gate.beta == beta {
                *state = on;
            }
        }
    }
}

impl fmt::Display for FeatureGates {
    /// The gates away from their default, as a list that [`FeatureGates::with`] reads.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> = self.changed().map(|(gate, on)| format!("{}={on}", gate.name)).collect();
        formatter.write_str(&list.join(","))
    }
}

fn invalid_switch(name: &str, value: &str, error: NumberError) -> ValueError {
    let error = error.in_strconv("ParseBool", value);
    ValueError(format!("invalid value of {name}={value}, err: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_gates_are_on_and_alpha_gates_off() {
        let gates = FeatureGates::default();
        assert!(gates.is_on("FastLeaseKeepAlive"));
        assert!(!gates.is_on("LeaseCheckpoint"));
        assert_eq!(gates.to_string(), "");
    }

    #[test]
    fn a_gate_named_by_itself_wins_over_its_stage() {
        let gates = FeatureGates::default().with("PriorityRequest=false, AllAlpha=true").unwrap();
        assert!(gates.is_on("LeaseCheckpoint"));
        assert!(!gates.is_on("PriorityRequest"));
    }

    #[test]
    fn a_bad_list_is_told_in_the_words_of_etcd() {
        for (list, words) in [
            ("Foo=true", "unrecognized feature gate: Foo"),
            ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
            (
                "LeaseCheckpoint=x",
                "invalid value of LeaseCheckpoint=x, err: strconv.ParseBool: parsing \"x\": \
                 invalid syntax",
            ),
        ] {
            assert_eq!(FeatureGates::default().with(list).unwrap_err().to_string(), words);
        }
    }
}
