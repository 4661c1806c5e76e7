//! For fish, from 3.0 on.

use super::{Place, Value, flags_with, formats};

const BEGIN: &str = r#"# fish completion for etchedutl. To load it: etchedutl completion fish | source
function __etchedutl_at
    set -l at
    set -l valued 0
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test $valued = 1
            set valued 0
            continue
        end
        switch $word
            case @VALUED@
                set valued 1
            case '-*'
            case '*'
                if contains -- (string join ' ' $at $word) @PLACES@
                    set at $at $word
                end
        end
    end
    test "$at" = "$argv"
end
complete -c etchedutl -f
"#;

pub(super) fn script(places: &[Place]) -> String {
    let named: Vec<String> = places[1..].iter().map(|place| quoted(&place.at)).collect();
    let mut script = BEGIN
        .replace("@VALUED@", &flags_with(places, |value| value != Value::Nothing).join(" "))
        .replace("@PLACES@", &named.join(" "));
    for place in places {
        let when =
            format!("complete -c etchedutl -n {}", quoted(&format!("__etchedutl_at {}", place.at)));
        if place.file {
            script += &format!("{when} -F\n");
        }
        for (word, about) in &place.words {
            script += &format!("{when} -a {word} -d {}\n", quoted(about));
        }
        for flag in &place.flags {
            let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
            let value = match Value::of(flag) {
                Value::Nothing => String::new(),
                Value::Folder => " -x -a '(__fish_complete_directories)'".to_owned(),
                Value::Format => format!(" -x -a {}", quoted(&formats())),
                Value::Free => " -x".to_owned(),
            };
            script += &format!("{when} -l {}{short}{value} -d {}\n", flag.name, quoted(flag.help));
        }
    }
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.trim_end().replace('\\', "\\\\").replace('\'', "\\'"))
}
