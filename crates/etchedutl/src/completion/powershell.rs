//! For PowerShell, from 5.0 on.

use super::{Place, Value, flags_with, formats, quoted};

const BEGIN: &str = r#"# PowerShell completion for etchedutl. To load it: etchedutl completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName 'etchedutl' -ScriptBlock {
    param($word, $ast, $position)
    $at = ''
    $flag = ''
    $elements = @($ast.CommandElements | Select-Object -Skip 1 | Where-Object { $_.Extent.EndOffset -lt $position })
    foreach ($element in $elements) {
        $text = $element.ToString()
        if ($flag) { $flag = ''; continue }
        if (@(@VALUED@) -ccontains $text) { $flag = $text; continue }
        if ($text.StartsWith('-')) { continue }
        $next = "$at $text".Trim()
        if (@(@PLACES@) -ccontains $next) { $at = $next }
    }
    $found = @()
    $file = $false
    if ($flag) {
        if (@(@FORMATTED@) -ccontains $flag) { $found = @(@FORMATS@) | ForEach-Object { , @($_, $_) } }
        elseif (@(@FOLDERS@) -ccontains $flag) { $file = $true }
    } else {
        switch -CaseSensitive ($at) {
"#;
const END: &str = r#"        }
    }
    if ($file -and -not $word.StartsWith('-')) {
        [System.Management.Automation.CompletionCompleters]::CompleteFilename($word)
        return
    }
    $found | Where-Object { $_[0].StartsWith($word) -and ($word -or -not $_[0].StartsWith('-')) } | ForEach-Object {
        [System.Management.Automation.CompletionResult]::new($_[0], $_[0], 'ParameterValue', $_[1])
    }
}
"#;

pub(super) fn script(places: &[Place]) -> String {
    let list = |names: Vec<String>| {
        names.iter().map(|name| quoted(name, "''")).collect::<Vec<_>>().join(", ")
    };
    let named = places[1..].iter().map(|place| place.at.clone()).collect();
    let mut script = BEGIN
        .replace("@VALUED@", &list(flags_with(places, |value| value != Value::Nothing)))
        .replace("@PLACES@", &list(named))
        .replace("@FORMATTED@", &list(flags_with(places, |value| value == Value::Format)))
        .replace("@FOLDERS@", &list(flags_with(places, |value| value == Value::Folder)))
        .replace("@FORMATS@", &list(formats().split(' ').map(str::to_owned).collect()));
    for place in places {
        let flags = place.flags.iter().map(|flag| (format!("--{}", flag.name), flag.help));
        let words = place.words.iter().map(|(word, about)| ((*word).to_owned(), *about));
        let pairs = words.chain(flags).map(|(word, about)| {
            // A tooltip must not be empty.
            let about = if about.is_empty() { &word } else { about };
            format!("@({}, {})", quoted(&word, "''"), quoted(about, "''"))
        });
        script += &format!(
            "            {} {{ $file = ${}; $found = @({}) }}\n",
            quoted(&place.at, "''"),
            place.file,
            pairs.collect::<Vec<_>>().join(", "),
        );
    }
    script + END
}
