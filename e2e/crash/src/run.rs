//! One run of a scenario: with a fault or without, from an empty world to its end, and the judgement of all of it.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{process::Child, time::timeout};

use crate::{
    end::{differences, end, is_settled},
    history::Kind,
    process::{self, Program},
    proxy::{Proxy, Serving, Strike},
    scenarios::Scenario,
    stale::{Lost, Stale},
    watcher,
    world::{PATIENCE, World},
};

/// What happens to the operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    None,
    /// It is struck at one of its writes, and another operator takes over at once.
    Strike(Strike),
    /// Its watches of these kinds fall silent when the first machine is claimed.
    Freeze(BTreeSet<Kind>),
    /// Its watches lose events, chosen by this seed.
    Lose(u64),
}

/// Of a hundred changes, how many a watch does not tell.
const LOST_PERCENT: u64 = 25;
/// The kinds whose watches an operator decides to look again by.
pub(crate) const WATCHED: [Kind; 4] = [Kind::Host, Kind::Node, Kind::NodeConfig, Kind::Rollout];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Strike(Strike::Before(at)) => write!(f, "before:{at}"),
            Self::Strike(Strike::After(at)) => write!(f, "after:{at}"),
            Self::Strike(Strike::Stop(at)) => write!(f, "stop:{at}"),
            Self::Freeze(kinds) => {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.plural()).collect();
                write!(f, "freeze:{}", kinds.join("+"))
            }
            Self::Lose(seed) => write!(f, "lose:{seed}"),
        }
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (what, which) = text.split_once(':').unwrap_or((text, ""));
        let at = || which.parse().with_context(|| format!("{text}: a number comes after the colon"));
        Ok(match what {
            "none" => Self::None,
            "before" => Self::Strike(Strike::Before(at()?)),
            "after" => Self::Strike(Strike::After(at()?)),
            "stop" => Self::Strike(Strike::Stop(at()?)),
            "lose" => Self::Lose(which.parse()?),
            "freeze" => {
                let known = |plural: &str| WATCHED.into_iter().find(|kind| kind.plural() == plural);
                Self::Freeze(
                    which.split('+').map(|kind| known(kind).context("no such kind")).collect::<Result<_, _>>()?,
                )
            }
            _ => bail!("say none, before:N, after:N, stop:N, freeze:KIND+KIND or lose:SEED, not {text}"),
        })
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The writes of the first operator, as far as it came.
    pub(crate) writes: Vec<String>,
    /// The write that was struck; none when the run had fewer.
    pub(crate) struck: Option<String>,
    /// What the API server said to a write that was held back.
    pub(crate) late_answer: Option<u16>,
    /// What is wrong.
    pub(crate) violations: Vec<String>,
    /// How it ended.
    pub(crate) end: Value,
    /// Lists from an old state that an operator asked for.
    pub(crate) old_lists: BTreeSet<String>,
}

impl Outcome {
    /// Of a run that could not be made.
    pub(crate) fn broken(error: &anyhow::Error) -> Self {
        Self { violations: vec![format!("the run could not be made: {error:#}")], ..Self::default() }
    }
}

/// An operator and its way to the API server.
struct Operator {
    child: Child,
    way: Serving,
}

impl Operator {
    async fn start(
        world: &World,
        program: &Program,
        name: &str,
        strike: Option<Strike>,
        stale: Stale,
    ) -> anyhow::Result<Self> {
        let way = Proxy::serve(world.upstream.clone(), &world.node_label, strike, stale).await?;
        let child = program.start(&world.namespace, name, way.port, &way.proxy.process)?;
        Ok(Self { child, way })
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        process::end(&mut self.child, &self.way.proxy.process).await
    }
}

/// Plays a scenario once. `expected` is how it ends without a fault.
pub(crate) async fn run(
    world: &World,
    program: &Program,
    scenario: &Scenario,
    fault: &Fault,
    expected: Option<&Value>,
) -> anyhow::Result<Outcome> {
    world.reset(scenario.machines, scenario.app).await.context("resetting the world")?;
    let _ = std::fs::remove_file(program.log(&world.namespace));
    let (strike, lost) = match fault {
        Fault::Strike(strike) => (Some(*strike), None),
        Fault::Lose(seed) => (None, Some(Lost { kinds: WATCHED.into(), percent: LOST_PERCENT, seed: *seed })),
        Fault::None | Fault::Freeze(_) => (None, None),
    };
    let stale = Stale::new(lost);
    let mut first = Operator::start(world, program, "first", strike, stale.clone()).await?;
    let known = |log: &crate::history::Log| {
        let known = log.all(Kind::Host).filter(|(_, host)| !host["status"]["phase"].is_null()).count();
        (known == scenario.machines as usize).then_some(())
    };
    world.history.until("each machine has its Host", PATIENCE, known).await?;
    (scenario.before)(world).await.context("preparing the world")?;
    // What was prepared is no part of the history that is judged.
    world.history.catch_up().await?;
    world.history.begin();
    first.way.proxy.count();

    let mut second = None;
    let reached = {
        let playing = async {
            (scenario.play)(world).await?;
            let rest = |log: &crate::history::Log| match expected {
                Some(expected) => (end(log, &world.namespace) == *expected).then_some(()),
                None => is_settled(log).then_some(()),
            };
            world.history.until("everything is at rest and as expected", PATIENCE, rest).await
        };
        let disturbing = disturb(world, program, &first.way.proxy, fault, &stale, &mut second);
        tokio::pin!(playing, disturbing);
        // The disturbance never ends the run; its failure does.
        tokio::select! {
            reached = &mut playing => reached,
            failed = &mut disturbing => match failed {
                Ok(()) => playing.await,
                Err(error) => Err(error),
            },
        }
    };
    let struck = let_go(&first.way.proxy, fault).await?;
    first.end().await?;
    let mut old_lists = first.way.proxy.old_lists();
    if let Some(second) = &mut second {
        second.end().await?;
        old_lists.extend(second.way.proxy.old_lists());
    }
    world.history.catch_up().await?;

    let log = world.history.log();
    let mut violations = watcher::judge(&log);
    if let Err(error) = reached {
        violations.push(format!("{error:#}"));
    }
    let end = end(&log, &world.namespace);
    if let Some(expected) = expected {
        violations.extend(differences(expected, &end));
    }
    Ok(Outcome {
        writes: first.way.proxy.writes(),
        struck: struck.write,
        late_answer: struck.answer.filter(|_| matches!(fault, Fault::Strike(Strike::Stop(_)))),
        violations,
        end,
        old_lists,
    })
}

/// Does what the fault says, when its moment has come.
async fn disturb(
    world: &World,
    program: &Program,
    proxy: &Arc<Proxy>,
    fault: &Fault,
    stale: &Stale,
    second: &mut Option<Operator>,
) -> anyhow::Result<()> {
    match fault {
        Fault::None | Fault::Lose(_) => Ok(()),
        Fault::Strike(_) => {
            let mut struck = proxy.struck.subscribe();
            struck.wait_for(|struck| struck.write.is_some()).await?;
            world.free_lease().await?;
            *second = Some(Operator::start(world, program, "second", None, Stale::new(None)).await?);
            Ok(())
        }
        Fault::Freeze(kinds) => {
            let claimed = |log: &crate::history::Log| {
                log.all(Kind::Host).any(|(_, host)| !host["status"]["claim"].is_null()).then_some(())
            };
            world.history.until("a machine is claimed", PATIENCE, claimed).await?;
            stale.frozen.send_replace(kinds.clone());
            Ok(())
        }
    }
}

/// Lets a stopped operator go on, with the write that was held back, and waits for the API server's answer to it.
async fn let_go(proxy: &Proxy, fault: &Fault) -> anyhow::Result<crate::proxy::Struck> {
    let struck = proxy.struck.borrow().clone();
    if !matches!(fault, Fault::Strike(Strike::Stop(_))) || struck.write.is_none() {
        return Ok(struck);
    }
    let mut answers = proxy.struck.subscribe();
    proxy.go.notify_one();
    let answered = timeout(Duration::from_secs(20), answers.wait_for(|struck| struck.answer.is_some())).await;
    proxy.process.signal(Signal::CONT);
    Ok(answered.context("the write that was held back has no answer")??.clone())
}
