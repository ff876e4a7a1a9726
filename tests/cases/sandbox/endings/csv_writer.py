import csv, sys
csv.writer(sys.stdout).writerow([1, "a b"])
