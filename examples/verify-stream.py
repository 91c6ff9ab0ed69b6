# Tells whose API key it is, by asking a program `apikey verify --stream` that stays open: it tries again by
# itself, sees a backup that was restored, and writes down when a key was used where it may. Reads a key a
# line from standard input; prints the user, or `-` where the key is not accepted.
import json, os, re, subprocess, sys, threading

def begin():
    global asked, stream
    asked, stream = threading.Lock(), None  # a question and its answer are one thread's

begin()
os.register_at_fork(after_in_child=begin)  # and one process's

def answer_to(key):
    global stream
    with asked:
        child, stream = stream, None  # one whose answer is not read would give it to who asks next
        if child is None or child.poll() is not None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            child = subprocess.Popen(["apikey", "verify", "--stream"], text=True, **pipes)
        try:
            os.write(child.stdin.fileno(), f"{key}\n".encode())  # through no buffer that a fork would copy
            line = child.stdout.readline()
            if not line:
                raise RuntimeError(f"apikey verify --stream ended with status {child.wait()}")
            answer = json.loads(line)
            stream = child
            return answer
        finally:
            if stream is None:
                child.kill()
                child.wait()

def user_of(key):
    """The user whose key it is, or None. An error is no answer: it is raised."""
    if not re.fullmatch("ak_[0-9a-f]{72}", key):
        return None
    answer = answer_to(key)
    return answer["user"] if answer["valid"] else None

if __name__ == "__main__":
    for line in sys.stdin.buffer:
        print(user_of(line.rstrip(b"\n").decode(errors="replace")) or "-")
