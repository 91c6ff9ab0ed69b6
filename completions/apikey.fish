complete --keep-order --exclusive --command apikey --arguments "(APIKEY_COMPLETE=fish apikey -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
