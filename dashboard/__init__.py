"""The control room: the Streamlit app and the command line."""
