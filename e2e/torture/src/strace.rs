//! What strace is asked, and what it answers.

use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

/// The system calls that change something, or start something. A `?` in front lets strace pass over those that this
/// kernel does not have.
const MUTATING: &[&str] = &[
    "open",
    "openat",
    "openat2",
    "creat",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "fsync",
    "fdatasync",
    "syncfs",
    "truncate",
    "ftruncate",
    "fallocate",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "utimensat",
    "copy_file_range",
    "sendfile",
    "splice",
    "mount",
    "umount2",
    "swapon",
    "swapoff",
    "fork",
    "vfork",
    "clone",
    "clone3",
    "execve",
    "execveat",
    "chroot",
];

/// What happens at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Kill,
    NoSpace,
    Io,
}

impl Fault {
    pub(crate) const ALL: [Self; 3] = [Self::Kill, Self::NoSpace, Self::Io];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "signal=KILL",
            Self::NoSpace => "error=ENOSPC",
            Self::Io => "error=EIO",
        })
    }
}

/// Whose system calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// The agent's. It does all its work in one thread.
    Agent,
    /// Those of its commands, each for itself; the agent's too, because strace cannot leave it out.
    Commands,
}

/// A fault at the N-th system call of a name, as strace's `-e inject=` takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Injection {
    pub(crate) whose: Whose,
    pub(crate) name: String,
    pub(crate) fault: Fault,
    pub(crate) when: usize,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let follow = if self.whose == Whose::Commands { "-f " } else { "" };
        write!(f, "{follow}{}:{}:when={}", self.name, self.fault, self.when)
    }
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted =
            || format!("{text:?} is no injection; write it as [-f ]NAME:signal=KILL:when=N, or with error=EIO");
        let (whose, rest) = match text.strip_prefix("-f ") {
            Some(rest) => (Whose::Commands, rest),
            None => (Whose::Agent, text),
        };
        let [name, fault, when] = rest.split(':').collect::<Vec<_>>()[..] else { return Err(wanted()) };
        let fault = Fault::ALL.into_iter().find(|known| known.to_string() == fault).ok_or_else(wanted)?;
        let when = when.strip_prefix("when=").and_then(|number| number.parse().ok()).ok_or_else(wanted)?;
        Ok(Self { whose, name: name.to_owned(), fault, when })
    }
}

/// The arguments of strace for one run. Its `--seccomp-bpf` would be faster, and never delivers the signals (6.1).
pub(crate) fn arguments(log: &Path, whose: Whose, injection: Option<&Injection>) -> Vec<String> {
    let names = MUTATING.iter().map(|name| format!("?{name}")).collect::<Vec<_>>().join(",");
    let mut arguments: Vec<String> = ["-q", "-y", "-s", "0", "-o"].map(str::to_owned).into();
    arguments.push(log.to_string_lossy().into_owned());
    if whose == Whose::Commands {
        arguments.push("-f".into());
    }
    let traced = injection.map_or(names, |injection| injection.name.clone());
    arguments.extend(["-e".into(), format!("trace={traced}"), "-e".into(), "signal=KILL".into()]);
    if let Some(Injection { name, fault, when, whose: _ }) = injection {
        arguments.extend(["-e".into(), format!("inject={name}:{fault}:when={when}")]);
    }
    arguments
}

/// A system call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Which one of this name of its process, from 1.
    pub(crate) number: usize,
    /// The whole line.
    pub(crate) text: String,
}

/// The calls of a log that change something, of the agent or of its commands.
pub(crate) fn calls(log: &str, whose: Whose) -> Vec<Call> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut calls = Vec::new();
    let mut agent = None;
    for line in log.lines() {
        let (process, line) = match whose {
            Whose::Agent => ("", line),
            Whose::Commands => line.split_once(' ').map_or(("", line), |(pid, rest)| (pid, rest.trim_start())),
        };
        let Some((name, rest)) = line.split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let is_agent = *agent.get_or_insert(process) == process;
        let number = counts.entry((process, name)).or_default();
        *number += 1;
        let began = name == "execve" && is_agent && *number == 1;
        if changes(name, rest) && !began && (whose == Whose::Agent || !is_agent) {
            calls.push(Call { name: name.to_owned(), number: *number, text: line.to_owned() });
        }
    }
    calls
}

/// An open may only read, and a write may only wake up another thread.
fn changes(name: &str, arguments: &str) -> bool {
    match name {
        "open" | "openat" | "openat2" => {
            ["O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR"].iter().any(|flag| arguments.contains(flag))
        }
        "write" | "writev" => !["<pipe:", "<anon_inode:", "<socket:", "<UNIX"].iter().any(|fd| arguments.contains(fd)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injection_is_read_as_it_is_written() {
        for text in ["rename:signal=KILL:when=3", "-f execve:error=ENOSPC:when=1", "fsync:error=EIO:when=20"] {
            assert_eq!(text.parse::<Injection>().unwrap().to_string(), text);
        }
        for text in ["", "rename", "rename:signal=TERM:when=3", "rename:signal=KILL:when=x", "a:b:c:d"] {
            assert!(text.parse::<Injection>().is_err(), "{text}");
        }
    }

    #[track_caller]
    fn check(log: &str, whose: Whose, expected: &str) {
        let calls = calls(log, whose);
        let found: Vec<String> = calls.iter().map(|call| format!("{} {}", call.name, call.number)).collect();
        assert_eq!(found.join(", "), expected);
    }

    #[test]
    fn counts_all_calls_and_names_those_that_change_something() {
        let log = "execve(\"/agent\", [\"/agent\"], 0x7ffd /* 0 vars */) = 0\n\
                   openat(AT_FDCWD</>, \"\"..., O_RDONLY|O_CLOEXEC) = 3</etc>\n\
                   openat(3</etc>, \"\"..., O_WRONLY|O_CREAT|O_EXCL, 0600) = 4</etc/x>\n\
                   write(5<anon_inode:[eventfd]>, \"\"..., 8) = 8\n\
                   write(4</etc/x>, \"\"..., 8) = 8\n\
                   +++ exited with 0 +++\n";
        check(log, Whose::Agent, "openat 2, write 2");
    }

    #[test]
    fn each_command_counts_for_itself() {
        let log = "7  execve(\"/agent\", [\"/agent\"], 0x7ffd /* 0 vars */) = 0\n\
                   7  write(4</etc/x>, \"\"..., 8) = 8\n\
                   7  vfork( <unfinished ...>\n\
                   8  execve(\"/proc/self/exe\", [\"/agent\"], 0x7ffd /* 0 vars */) = 0\n\
                   7  <... vfork resumed>) = 8\n\
                   8  chroot(\"\"...) = 0\n\
                   8  execve(\"/bin/sh\", [\"sh\"], 0x7ffd /* 0 vars */) = 0\n";
        check(log, Whose::Commands, "execve 1, chroot 1, execve 2");
    }
}
