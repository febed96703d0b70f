# `make demo` sets everything up and shows it at work; `make test` sets everything up and tests it.
# Another Python: PYTHON=python3.12 make demo. Without make: the scripts below, run with bash.
.PHONY: help setup demo test test-faults clean

help:
	@echo "make demo   install, make the built-in data set, train, evaluate, export (a few minutes)"
	@echo "make test   install and run the tests"
	@echo "make test-faults   try at length what may go wrong: kills, hostile input, long runs (about an hour)"
	@echo "make setup  install only, into .venv"
	@echo "make clean  remove .venv; data/, runs/ and exported/ stay"

setup:
	@bash tools/setup.sh

demo: setup
	@bash tools/demo.sh

test: setup
	@bash tools/test.sh

test-faults: setup
	@bash tools/test_faults.sh

clean:
	rm -rf .venv
