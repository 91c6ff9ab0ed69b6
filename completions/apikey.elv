
set edit:completion:arg-completer[apikey] = { |@words|
    var index = (count $words)
    set index = (- $index 1)

    put (env _CLAP_IFS="\n" _CLAP_COMPLETE_INDEX=(to-string $index) APIKEY_COMPLETE="elvish" apikey -- $@words) | to-lines
}

