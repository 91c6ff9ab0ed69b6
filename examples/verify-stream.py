# Tells whose API key it is, by asking a program `apikey verify --stream` that stays open: it tries again by
# itself, sees a backup that was restored, and writes down when a key was used where it may. Reads a key a
# line from standard input; prints the user, or `-` where the key is not accepted.
import json, re, subprocess, sys, threading

asked = threading.Lock()  # a question and its answer are one thread's
stream = None

def answer_to(key):
    global stream
    with asked:
        if stream is None or stream.poll() is not None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            stream = subprocess.Popen(["apikey", "verify", "--stream"], text=True, bufsize=1, **pipes)
        stream.stdin.write(key + "\n")
        line = stream.stdout.readline()
        if not line:
            raise RuntimeError(f"apikey verify --stream ended with status {stream.wait()}")
        return json.loads(line)

def user_of(key):
    """The user whose key it is, or None. An error is no answer: it is raised."""
    if not re.fullmatch("ak_[0-9a-f]{72}", key):
        return None
    answer = answer_to(key)
    return answer["user"] if answer["valid"] else None

if __name__ == "__main__":
    for line in sys.stdin.buffer:
        print(user_of(line.rstrip(b"\n").decode(errors="replace")) or "-")
