//! Single behaviours that a random history says too little about.
