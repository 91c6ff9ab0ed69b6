//! The examples in the help of the commands.

type Command = apikey::cli::ClapCommand;

/// Each example of a command: what it is for, and the command.
pub fn with_captions(command: &Command) -> Vec<(String, String)> {
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let mut examples = Vec::new();
    let mut caption = "";
    // A command may go on in the next line.
    let text: String = text.split("\\\n").map(str::trim_start).collect();
    for line in text.lines().map(str::trim).skip_while(|line| *line != "Examples:").skip(1) {
        match line.strip_prefix("$ ") {
            Some(example) => examples.push((caption.to_owned(), example.to_owned())),
            None => caption = line,
        }
    }
    examples
}

/// All examples of all commands, in an order in which they can be run.
pub fn of(program: &Command) -> Vec<String> {
    let order = [
        "create",
        "show",
        "verify",
        "list",
        "ensure",
        "edit",
        "refresh",
        "renew",
        "revoke",
        "log",
        "doctor",
        "prune",
        "backup",
        "completions",
    ];
    let commands = program.get_subcommands().filter(|command| command.get_name() != "help").count();
    assert_eq!(commands, order.len(), "a command whose examples are not run");
    let examples = order.iter().flat_map(|name| with_captions(program.find_subcommand(name).unwrap()));
    examples.map(|(_, command)| command).collect()
}
