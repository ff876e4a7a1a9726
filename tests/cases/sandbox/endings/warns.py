import warnings
warnings.warn("careful")
print("main")
