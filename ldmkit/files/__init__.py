"""Reading and writing of users' files: pictures, JSON, and what is checked before either."""
