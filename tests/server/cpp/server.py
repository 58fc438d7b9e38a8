"""The server in C++, which `make ctest` builds."""

import signal
import subprocess


class CppServer:
    """A process of the program, with the methods that the contract asks for. ``max_rows=100`` is ``--max-rows 100``."""

    def __init__(self, program, served, errors, **options):
        given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        self.served, self.errors = served, errors
        with errors.open("w") as stderr:
            self.process = subprocess.Popen(
                [program, "--model", served, "--port", "0", *given], stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), (line, self.process.wait(), errors.read_text())
        self.url = line.removeprefix("listening on ").strip()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def ask_to_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """The exit code, when it has stopped."""
        self.ask_to_stop()
        code = self.process.wait(60)
        self.process.stdout.close()
        return code
