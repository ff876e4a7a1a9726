import gc, sys

for name in sys.modules:
    if name.split(".")[0] in ("services", "perilune"):
        print("escaped: module", name)
for thing in gc.get_objects():
    if type(thing).__module__.startswith(("services", "perilune")):
        print("escaped: object", type(thing))
text = repr((sys.argv, sys.path, sys.orig_argv))
if "services" in text or "keeper" in text:
    print("escaped: knows", text)
frame = sys._getframe()
while frame:
    for name, value in {**frame.f_locals}.items():
        if type(value).__name__ in ("socket", "SlotConfig", "JobRequest", "Terms"):
            print("escaped: frame holds", name)
    frame = frame.f_back
print("held")
