"""`python -m meshllm` is `mesh-llm`."""

from meshllm.cli.main import main

if __name__ == "__main__":
    main()
