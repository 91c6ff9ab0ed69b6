#!/bin/bash
# Tells whose API key it is, by `apikey verify --stream`. Needs jq. Reads a key a line from standard input; prints
# the user, or `-` where the key is not accepted. An error is no answer: its status is not 0.
set -o pipefail
apikey verify --stream | jq --unbuffered --raw-output 'if .valid then .user else "-" end'
