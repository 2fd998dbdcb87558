import warnings

# transformers' bars ask every notebook for widgets, which nobody needs here
warnings.filterwarnings("ignore", message="IProgress not found")
