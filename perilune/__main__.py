"""`python -m perilune`: the command line where no script was installed, such as in the images."""

from perilune.cli import main

if __name__ == "__main__":
    main()
