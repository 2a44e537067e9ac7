//! What is known about models, who waits to know more, and when who did not answer is asked again.
//! Talks to nobody and has no clock: questions go to whoever asks, time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_inspect::{InspectError, Inspection};
use tokio::sync::mpsc::UnboundedSender;

use super::{Answer, Failure, Question};

/// So many models are remembered; those that were asked for the longest time ago go first.
const MOST: usize = 256;
/// For so long nobody asks what a branch stands for again.
const FRESH: i64 = 600;
/// An edit of a spec has a failed question asked again, but not more often than that.
const EDITED: i64 = 10;
/// Pause after what may be better the next time; it doubles with each failure in a row.
const PAUSE: i64 = 30;
/// The longest such pause, and the pause after what only somebody can put right.
const LONGEST_PAUSE: i64 = 3600;

/// Who wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker<'a> {
    /// Namespace of the deployment.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its generation: an edit is a reason to ask again.
    pub generation: i64,
    /// Whether it was told before, and status is about the spec as it is: then a branch is not looked
    /// up again.
    pub is_settled: bool,
}

/// What is remembered of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What was asked, at the commit that the answer is about where there is one.
    pub question: Question,
    /// The answer.
    pub inspection: Arc<Inspection>,
    /// Branches and tags that stood for that commit, and when, in Unix seconds.
    pub branches: BTreeMap<String, i64>,
}

/// What is known about models.
#[derive(Debug)]
pub struct Library {
    state: Mutex<State>,
    /// `None`: nobody is asked.
    asks: Option<UnboundedSender<Question>>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Question, Entry>,
    /// When each was used last, in uses.
    used: HashMap<Question, u64>,
    uses: u64,
    /// Namespaces and names of deployments that wait for an answer.
    asking: HashMap<Question, BTreeSet<(String, String)>>,
    failed: HashMap<Question, Failed>,
    /// Until when the hub itself is left alone, in Unix seconds, and why.
    rests: Option<(i64, Failure)>,
}

#[derive(Debug)]
struct Failed {
    failure: Failure,
    at: i64,
    until: i64,
    times: u32,
    /// UIDs and generations of the deployments that know.
    told: BTreeMap<String, i64>,
}

/// What an answer leads to.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// Deployments to look at, by namespace and name.
    pub waiting: BTreeSet<(String, String)>,
    /// What is to be kept.
    pub keep: Option<Entry>,
    /// What is to be forgotten.
    pub forget: Vec<Question>,
}

impl Library {
    /// A library that sends questions there, or asks nobody.
    pub fn new(asks: Option<UnboundedSender<Question>>) -> Self {
        Self { state: Mutex::default(), asks }
    }

    /// Takes in what was kept by an operator before. Of two that were kept for one branch the later
    /// one counts.
    pub fn remember(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut state = self.lock();
        for entry in entries {
            state.use_(&entry.question);
            state.entries.insert(entry.question.clone(), entry);
        }
    }

    /// What is known, without asking anybody.
    pub fn peek(&self, question: &Question) -> Option<Arc<Inspection>> {
        self.lock().known(question).map(|(_, entry)| Arc::clone(&entry.inspection))
    }

    /// What is known about a model; whoever has to be asked is. With it, in seconds, when to look
    /// again though nobody was asked.
    pub fn ask(&self, question: &Question, asker: &Asker<'_>, now: i64) -> (Answer, Option<u64>) {
        let Some(asks) = &self.asks else { return (Answer::Unasked, None) };
        let mut state = self.lock();
        let known = state.known(question).map(|(seen, entry)| (seen, entry.clone()));
        if let Some((seen, entry)) = &known {
            state.use_(&entry.question);
            let fresh = question.is_pinned() || asker.is_settled || now - seen < FRESH;
            if fresh {
                return (Answer::Known(Arc::clone(&entry.inspection)), None);
            }
        }
        // What was known is good enough where nothing newer can be learnt.
        let or_known = |failure: &Failure| match &known {
            Some((_, entry)) => Answer::Known(Arc::clone(&entry.inspection)),
            None => Answer::Failed(failure.clone()),
        };
        let who = (asker.namespace.to_owned(), asker.name.to_owned());
        if let Some(waiting) = state.asking.get_mut(question) {
            waiting.insert(who);
            return match state.failed.get(question) {
                Some(failed) if failed.knows(asker) => (or_known(&failed.failure), None),
                _ => (Answer::Asking, None),
            };
        }
        let mut answer = Answer::Asking;
        if let Some(failed) = state.failed.get_mut(question) {
            let edited = !failed.knows(asker) && now - failed.at >= EDITED;
            let due = now >= failed.until;
            if !edited {
                failed.told.insert(asker.uid.to_owned(), asker.generation);
                // Asked again in the background: the failure is what is known until then.
                answer = or_known(&failed.failure);
            }
            if !edited && !due {
                let left = u64::try_from(failed.until - now).unwrap_or(1);
                return (answer, Some(left));
            }
        } else if let Some((until, failure)) = state.rests.clone().filter(|(until, _)| *until > now)
        {
            let left = u64::try_from(until - now).unwrap_or(1);
            return (or_known(&failure), Some(left));
        }
        state.asking.entry(question.clone()).or_default().insert(who);
        // The receiver ends only when the process does.
        let _ = asks.send(question.clone());
        (answer, None)
    }

    /// Takes in an answer.
    pub fn answered(
        &self,
        question: &Question,
        result: Result<Inspection, &InspectError>,
        now: i64,
    ) -> News {
        let mut state = self.lock();
        let waiting = state.asking.remove(question).unwrap_or_default();
        let news = match result {
            Ok(inspection) => {
                state.failed.remove(question);
                state.rests = None;
                let keep = state.learn(question, inspection, now);
                News { keep: Some(keep), forget: state.too_many(), ..News::default() }
            }
            Err(error) => {
                state.fail(question, error, now);
                News::default()
            }
        };
        News { waiting, ..news }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failed {
    fn knows(&self, asker: &Asker<'_>) -> bool {
        self.told.get(asker.uid) == Some(&asker.generation)
    }
}

impl State {
    /// What a question's revision stands for, and since when that is known.
    fn known(&self, question: &Question) -> Option<(i64, &Entry)> {
        if let Some(entry) = self.entries.get(question) {
            return Some((i64::MAX, entry));
        }
        let of_branch = self.entries.values().filter(|entry| entry.question.is_about(question));
        of_branch
            .filter_map(|entry| Some((*entry.branches.get(&question.revision)?, entry)))
            .max_by_key(|(seen, _)| *seen)
    }

    fn use_(&mut self, question: &Question) {
        self.uses += 1;
        self.used.insert(question.clone(), self.uses);
    }

    fn learn(&mut self, question: &Question, inspection: Inspection, now: i64) -> Entry {
        let commit = inspection.commit.clone();
        let about = commit.map_or_else(|| question.clone(), |commit| question.at(&commit));
        self.use_(&about);
        let new = || Entry {
            question: about.clone(),
            inspection: Arc::new(inspection),
            branches: BTreeMap::new(),
        };
        let entry = self.entries.entry(about.clone()).or_insert_with(new);
        if question.revision != about.revision {
            entry.branches.insert(question.revision.clone(), now);
        }
        entry.clone()
    }

    fn fail(&mut self, question: &Question, error: &InspectError, now: i64) {
        let failure = Failure::from(error);
        let before = self.failed.remove(question);
        let times = before.as_ref().map_or(0, |before| before.times);
        let asked = error.retry_after().unwrap_or(Duration::ZERO).as_secs();
        let asked = i64::try_from(asked).unwrap_or(LONGEST_PAUSE).min(24 * LONGEST_PAUSE);
        let pause = if error.is_final() {
            LONGEST_PAUSE
        } else {
            let pause = (PAUSE << times.min(7)).min(LONGEST_PAUSE).max(asked);
            self.rests = Some((now + PAUSE.max(asked), failure.clone()));
            pause
        };
        let told = before.map(|before| before.told).unwrap_or_default();
        let failed = Failed { failure, at: now, until: now + pause, times: times + 1, told };
        self.failed.retain(|_, failed| now - failed.until < LONGEST_PAUSE);
        self.failed.insert(question.clone(), failed);
    }

    /// Takes out what is beyond the bound.
    fn too_many(&mut self) -> Vec<Question> {
        let mut forget = Vec::new();
        while self.entries.len() > MOST {
            let used = |question: &&Question| self.used.get(*question).copied().unwrap_or(0);
            let Some(oldest) = self.entries.keys().min_by_key(used).cloned() else { break };
            self.entries.remove(&oldest);
            self.used.remove(&oldest);
            forget.push(oldest);
        }
        forget
    }
}

#[cfg(test)]
mod tests {
    use berth_inspect::error::Cause;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::reconcile::reason::Reason;

    fn library() -> (Library, UnboundedReceiver<Question>) {
        let (asks, asked) = unbounded_channel();
        (Library::new(Some(asks)), asked)
    }

    fn question(name: &str) -> Question {
        Question {
            repository: format!("org/{name}"),
            revision: "main".to_owned(),
            files: None,
            gguf: false,
        }
    }

    fn asker(uid: &str, generation: i64) -> Asker<'_> {
        Asker { namespace: "team", name: uid, uid, generation, is_settled: false }
    }

    fn learnt(commit: char) -> Inspection {
        Inspection {
            commit: Some(commit.to_string().repeat(40)),
            facts: berth_vram::ModelFacts::default(),
            licence: None,
            exact: true,
            bytes_read: 1,
        }
    }

    fn busy(seconds: u64) -> InspectError {
        InspectError::GaveUp {
            what: "org/a".to_owned(),
            host: "hub".to_owned(),
            attempts: 1,
            cause: Cause::Throttled,
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    fn commit_of(answer: &Answer) -> Option<&str> {
        match answer {
            Answer::Known(known) => known.commit.as_deref(),
            _ => None,
        }
    }

    #[test]
    fn a_question_is_asked_once_and_all_who_wait_hear_the_answer() {
        let (library, mut asked) = library();
        for name in ["x", "y"] {
            let answer = library.ask(&question("a"), &asker(name, 1), 0);
            assert_eq!(answer, (Answer::Asking, None));
        }
        assert_eq!(asked.try_recv().unwrap(), question("a"));
        assert!(asked.try_recv().is_err());
        let news = library.answered(&question("a"), Ok(learnt('a')), 1);
        assert_eq!(news.waiting.len(), 2);
        assert_eq!(news.keep.unwrap().question, question("a").at(&"a".repeat(40)));
        let (answer, again) = library.ask(&question("a"), &asker("x", 1), 2);
        assert_eq!((commit_of(&answer), again), (Some("a".repeat(40).as_str()), None));
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn a_branch_is_looked_up_again_for_who_is_new_and_not_for_who_was_told() {
        let (library, mut asked) = library();
        library.ask(&question("a"), &asker("x", 1), 0);
        library.answered(&question("a"), Ok(learnt('a')), 0);
        asked.try_recv().unwrap();
        let told = Asker { is_settled: true, ..asker("x", 1) };
        let later = FRESH + 1;
        assert!(commit_of(&library.ask(&question("a"), &told, later).0).is_some());
        let pinned = question("a").at(&"a".repeat(40));
        assert!(commit_of(&library.ask(&pinned, &asker("z", 1), later).0).is_some());
        assert!(asked.try_recv().is_err());
        assert_eq!(library.ask(&question("a"), &asker("y", 1), later).0, Answer::Asking);
        asked.try_recv().unwrap();
        library.answered(&question("a"), Ok(learnt('b')), later);
        let (answer, _) = library.ask(&question("a"), &asker("y", 1), later);
        assert_eq!(commit_of(&answer), Some("b".repeat(40).as_str()));
        // What serves the older commit still finds what it was made from.
        assert!(library.peek(&pinned).is_some());
    }

    #[test]
    fn who_is_gone_is_asked_at_growing_intervals_and_what_was_known_is_used() {
        let (library, mut asked) = library();
        library.ask(&question("a"), &asker("x", 1), 0);
        library.answered(&question("a"), Ok(learnt('a')), 0);
        let late = FRESH + 1;
        library.ask(&question("a"), &asker("x", 1), late);
        library.answered(&question("a"), Err(&busy(0)), late);
        let (answer, again) = library.ask(&question("a"), &asker("x", 1), late + 1);
        assert!(commit_of(&answer).is_some() && again.is_some(), "{answer:?} {again:?}");
        while asked.try_recv().is_ok() {}

        // Another model meanwhile: the hub is left alone.
        let (answer, again) = library.ask(&question("b"), &asker("x", 1), late + 1);
        assert!(matches!(answer, Answer::Failed(_)) && again.is_some(), "{answer:?}");
        assert!(asked.try_recv().is_err());

        let mut now = late + 100;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            library.ask(&question("b"), &asker("x", 1), now);
            assert_eq!(asked.try_recv().unwrap(), question("b"));
            library.answered(&question("b"), Err(&busy(0)), now);
            let (answer, again) = library.ask(&question("b"), &asker("x", 1), now);
            assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
            pauses.push(again.unwrap());
            now += i64::try_from(again.unwrap()).unwrap();
        }
        assert_eq!(pauses[..3], [30, 60, 120]);
        assert_eq!(pauses[11], 3600);
        library.ask(&question("c"), &asker("x", 1), now + 3600);
        library.answered(&question("c"), Err(&busy(5000)), now + 3600);
        assert_eq!(library.ask(&question("c"), &asker("x", 1), now + 3600).1, Some(5000));
    }

    #[test]
    fn an_edit_has_a_refused_question_asked_again_and_nothing_else_does() {
        let (library, mut asked) = library();
        let refused = InspectError::NotFound("no org/a".to_owned());
        library.ask(&question("a"), &asker("x", 1), 0);
        asked.try_recv().unwrap();
        library.answered(&question("a"), Err(&refused), 0);
        for now in [1, 100, 3000] {
            let (answer, again) = library.ask(&question("a"), &asker("x", 1), now);
            let Answer::Failed(failure) = answer else { panic!("{answer:?}") };
            assert_eq!(failure.reason, Reason::ModelNotFound);
            assert_eq!(again, Some(3600 - u64::try_from(now).unwrap()));
            assert!(asked.try_recv().is_err());
        }
        assert_eq!(library.ask(&question("a"), &asker("x", 2), 3001).0, Answer::Asking);
        asked.try_recv().unwrap();
    }

    #[test]
    fn what_nobody_asked_for_goes_when_there_is_too_much() {
        let (library, _asked) = library();
        let mut forgotten = Vec::new();
        for number in 0..=MOST {
            let one = question(&format!("m{number}"));
            forgotten.extend(library.answered(&one, Ok(learnt('a')), 0).forget);
            // This one is used all the time.
            library.ask(&question("m0"), &asker("x", 1), 0);
        }
        assert_eq!(forgotten, [question("m1").at(&"a".repeat(40))]);
        assert!(library.peek(&question("m0")).is_some());
    }

    #[test]
    fn nobody_is_asked_where_that_is_switched_off() {
        let library = Library::new(None);
        assert_eq!(library.ask(&question("a"), &asker("x", 1), 0), (Answer::Unasked, None));
    }
}
