//! Which faults the stories met, and in which phase.

use std::collections::BTreeMap;
use std::fmt;

use stagegate::model::upgrade::Phase;

use super::story::Story;
use super::universe::Fault;

/// The phases in which something can still happen.
const PHASES: [Phase; 8] = [
    Phase::Pending,
    Phase::Preflight,
    Phase::Baseline,
    Phase::Rolling,
    Phase::Soak,
    Phase::RollingBack,
    Phase::Paused,
    Phase::Inconclusive,
];

pub struct Coverage {
    stories: usize,
    pub stories_with_a_fault: usize,
    cells: BTreeMap<(Fault, Phase), u64>,
    endings: BTreeMap<Phase, u64>,
}

impl Coverage {
    pub fn of(stories: &[Story]) -> Self {
        let mut cells = BTreeMap::new();
        let mut endings = BTreeMap::new();
        for story in stories {
            for &(phase, fault) in &story.faults {
                *cells.entry((fault, phase)).or_default() += 1;
            }
            *endings.entry(story.ending).or_default() += 1;
        }
        Self {
            stories: stories.len(),
            stories_with_a_fault: stories.iter().filter(|s| !s.faults.is_empty()).count(),
            cells,
            endings,
        }
    }

    /// Cells that can be reached, and were not.
    pub fn empty_cells(&self) -> Vec<(Fault, Phase)> {
        let cells = Fault::ALL.iter().flat_map(|&f| PHASES.map(|p| (f, p)));
        cells
            .filter(|cell| cell.0.may_happen_in(cell.1) && !self.cells.contains_key(cell))
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} stories, {} with a fault; they ended {:?}\n",
            self.stories, self.stories_with_a_fault, self.endings
        )?;
        write!(f, "| fault |")?;
        for phase in PHASES {
            write!(f, " {phase:?} |")?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(PHASES.len()))?;
        for &fault in Fault::ALL {
            write!(f, "| {fault:?} |")?;
            for phase in PHASES {
                match self.cells.get(&(fault, phase)) {
                    Some(times) => write!(f, " {times} |")?,
                    None if fault.may_happen_in(phase) => write!(f, " **none** |")?,
                    None => write!(f, " |")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
